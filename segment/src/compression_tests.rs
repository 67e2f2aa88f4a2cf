//! Round trips, bombs, broken frames, wrong counts.

use super::*;
use crate::{Offset, RecordBatch, StoredRecords};

const LZ4: Compression = Compression::Lz4;
const ZSTD: Compression = Compression::ZSTD;

#[cfg(all(feature = "lz4", feature = "zstd"))]
mod both {
    use super::*;
    use crate::{Offset, RecordBatch, StoredRecords};

    /// Bytes that no codec makes smaller.
    fn noise(length: usize) -> Vec<u8> {
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..length).map(next).collect()
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length)
            .map(|at| b"the quick brown fox jumps over the dog "[(at * at / 7) % 39])
            .collect()
    }

    /// The compressed bytes, also where a batch would be stored as it is.
    fn frame(bytes: &[u8], compression: Compression) -> Vec<u8> {
        let frame = match compression {
            Compression::None => None,
            Compression::Lz4 => compress_lz4(bytes),
            Compression::Zstd { level } => compress_zstd(bytes, level),
        };
        frame.expect("the tests are built with both codecs")
    }

    #[test]
    fn batches_are_read_back_whatever_is_in_them() {
        let most = MAX_UNCOMPRESSED_BYTES - 512;
        let values: [(&str, Vec<Vec<u8>>); 7] = [
            ("one empty", vec![vec![]]),
            ("one byte", vec![vec![7]]),
            ("many small", vec![b"{\"id\":1,\"name\":\"x\"}".to_vec(); 1000]),
            ("text", vec![text(70_000), text(3)]),
            ("noise", vec![noise(100_000)]),
            ("noise and zeros", vec![noise(50_000), vec![0; 200_000]]),
            ("the most", vec![vec![1; most / 2], text(most - most / 2)]),
        ];
        let levels = [1, 3, 19, 22].map(|level| Compression::Zstd { level });
        for (name, values) in values {
            for compression in [Compression::None, LZ4].into_iter().chain(levels) {
                if name == "the most" && compression == (Compression::Zstd { level: 22 }) {
                    continue; // Takes seconds, and shows nothing that 19 does not.
                }
                let mut builder = RecordBatch::builder().compression(compression);
                for value in &values {
                    builder.push(Some(5), None, Some(value), &[]);
                }
                let batch = builder.build().expect("it fits");
                let bytes = batch.records_bytes().to_vec();
                let stored = StoredRecords::new(bytes, batch.codec());
                let read = stored.records(batch.record_count(), Offset(9), 5);
                let read: Vec<_> = read.map(|r| r.expect("whole").value).collect();
                let made: Vec<_> = values.iter().map(|value| Some(&value[..])).collect();
                assert!(read == made, "{name} {compression:?}");
            }
        }
    }

    #[test]
    fn what_does_not_get_smaller_by_an_eighth_is_stored_as_it_is() {
        let of = |value: &[u8], compression| {
            let builder = RecordBatch::builder().compression(compression);
            builder.value(value).build().expect("it fits")
        };
        let partly = [noise(8000), vec![0; 500]].concat();
        for compression in [LZ4, ZSTD] {
            for stays in [&b""[..], b"short", &noise(9000), &partly] {
                assert_eq!(of(stays, compression).codec(), Codec::None);
                assert_eq!(of(stays, compression), of(stays, Compression::None));
            }
            let mostly = [noise(4000), vec![0; 4000]].concat();
            assert_eq!(of(&mostly, compression).codec(), compression.codec());
            assert!(of(&mostly, compression).disk_bytes() < 4300);
        }
    }

    #[test]
    fn frames_above_the_maximum_are_refused_and_taken_at_it() {
        for compression in [LZ4, ZSTD] {
            let at = frame(&vec![0; MAX_UNCOMPRESSED_BYTES], compression);
            let plain = decompress(&at, compression.codec()).map(|plain| plain.len());
            assert_eq!(plain, Ok(MAX_UNCOMPRESSED_BYTES), "{compression:?}");
            let bomb = frame(&vec![0; MAX_UNCOMPRESSED_BYTES + 1], compression);
            let found = decompress(&bomb, compression.codec());
            assert_eq!(found, Err(DecompressFault::TooLarge), "{compression:?}");
        }
    }

    /// Magic, descriptor, window or size: what a frame claims before it holds anything.
    #[test]
    fn zstd_frames_that_claim_too_much_are_refused() {
        let magic = 0xfd2f_b528_u32.to_le_bytes();
        let claims = |rest: &[u8]| decompress(&[&magic, rest].concat(), Codec::Zstd);
        let size = u64::MAX - 9;
        // Single segment, a size of 8 bytes.
        let claim = [&[0b1110_0000][..], &size.to_le_bytes()].concat();
        assert_eq!(claims(&claim), Err(DecompressFault::TooLarge));
        // A window of 2^31 bytes and an empty last block; the same with 2^25.
        let window = |log: u8| [0, (log - 10) << 3, 1, 0, 0];
        assert_eq!(claims(&window(31)), Err(DecompressFault::NotAFrame));
        assert_eq!(claims(&window(25)), Ok(Vec::new()));
    }

    /// A batch of many records; every cut of its frame, and what follows it.
    #[test]
    fn only_one_whole_frame_is_taken() {
        for compression in [LZ4, ZSTD] {
            let codec = compression.codec();
            let whole = frame(&text(3000), compression);
            assert_eq!(decompress(&whole, codec), Ok(text(3000)));
            for length in 0..whole.len() {
                let found = decompress(&whole[..length], codec);
                assert_eq!(found, Err(DecompressFault::NotAFrame), "{codec:?} {length}");
            }
            let twice = [&whole[..], &whole].concat();
            let more = [&whole[..], b"x"].concat();
            let other = frame(&text(3000), if compression == LZ4 { ZSTD } else { LZ4 });
            for wrong in [&twice, &more, &other, &text(3000)] {
                assert_eq!(decompress(wrong, codec), Err(DecompressFault::NotAFrame), "{codec:?}");
            }
        }
    }

    #[test]
    fn a_count_that_is_not_the_frames_is_one_error() {
        for compression in [LZ4, ZSTD] {
            let builder = RecordBatch::builder().compression(compression);
            let batch = (0..9).fold(builder, |builder, _| builder.value(&[1; 100]));
            let batch = batch.build().expect("it fits");
            assert_eq!(batch.codec(), compression.codec());
            for (count, good) in [(8, 8), (9, 9), (10, 9)] {
                let bytes = batch.records_bytes().to_vec();
                let stored = StoredRecords::new(bytes, batch.codec());
                let read: Vec<_> = stored.records(count, Offset(0), 0).collect();
                let errors = read.iter().filter(|record| record.is_err()).count();
                assert_eq!((read.len() - errors, errors), (good, usize::from(count != 9)));
                assert!(read[..good].iter().all(Result::is_ok), "the error is the last");
            }
        }
    }
}

#[test]
fn a_codec_that_is_not_known_is_no_damage() {
    for bits in [1, 2, 5, 6, 7] {
        let codec = Codec::of_attributes(bits | 8);
        assert_eq!((codec, codec.attribute_bits()), (Codec::Unknown(bits), bits));
        let stored = StoredRecords::new(vec![1, 2, 3], codec);
        let read: Vec<_> = stored.records(5, Offset(3), 0).collect();
        let error = read[0].expect_err("it cannot be read");
        assert!(error.needs_another_build && error.offset == Offset(3), "{error}");
        assert_eq!(read.len(), 1);
    }
}

#[test]
fn levels_and_missing_codecs_are_refused_by_name() {
    let build = |compression| RecordBatch::builder().compression(compression).value(b"v").build();
    let why = |compression| build(compression).map_err(|error| error.to_string());
    for level in [0, -1, 23, i32::MAX, i32::MIN] {
        let error = BuildError::CompressionLevel { level };
        assert_eq!(build(Compression::Zstd { level }), Err(error));
    }
    for (compression, name, built_in) in
        [(LZ4, "`lz4`", cfg!(feature = "lz4")), (ZSTD, "`zstd`", cfg!(feature = "zstd"))]
    {
        let named = why(compression).map_or_else(|text| text.contains(name), |_| built_in);
        assert!(named, "{compression:?}");
    }
}
