# Takes away what a run of the rig that has died left behind: $1 is the run's directory. With $2,
# a directory in /proc that goes away when the run's device stops serving, waits for that first.
trap '' HUP INT QUIT TERM
while [ -n "$2" ] && [ -d "$2" ]; do sleep 1; done
# Forced, this breaks the connection to the dead device even though it is in use. Whoever waits
# for the device then gets an error - also a killed process's own thread, which could not end.
umount --force "$1/device"
[ -z "$2" ] || sleep 1
for mounted in "$1"/mount*; do
    [ -d "$mounted" ] || continue
    umount "$mounted" || umount --lazy "$mounted"
    rmdir "$mounted"
done
losetup --noheadings --list --output NAME,BACK-FILE | while read -r device file; do
    case $file in
        "$1"/*) losetup --detach "$device" ;;
    esac
done
umount "$1/device" || umount --lazy "$1/device"
rmdir "$1/device"
rm -f "$1/lock"
rmdir "$1"
