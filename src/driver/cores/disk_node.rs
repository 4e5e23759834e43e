//! The NUMA node that a directory's disk is attached to.
//!
//! In: the directory, and sysfs below a root that tests replace. Out: the node, or none where the
//! kernel does not know it: file systems in memory and over others, disks of virtual machines,
//! stripes over disks of several nodes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::machine::read;

/// Volumes on volumes; deeper than anyone builds them, and an end where sysfs has a circle.
const DEPTH_MAX: u32 = 8;

/// The node of the disk under `directory`, or under where it will be made.
pub(super) fn of_directory(root: &Path, directory: &Path) -> Option<usize> {
    let here = |path: &Path| if path.as_os_str().is_empty() { ".".into() } else { path.to_owned() };
    let found = directory.ancestors().find_map(|path| fs::metadata(here(path)).ok())?;
    let device = found.dev();
    of_device(root, libc::major(device), libc::minor(device))
}

fn of_device(root: &Path, major: u32, minor: u32) -> Option<usize> {
    let sys = root.join("sys").canonicalize().ok()?;
    let device = sys.join(format!("dev/block/{major}:{minor}")).canonicalize().ok()?;
    of_path(&sys, &device, DEPTH_MAX)
}

/// Looks from the device up to its bus, and where it is made of others at those.
fn of_path(sys: &Path, device: &Path, depth: u32) -> Option<usize> {
    for place in device.ancestors().take_while(|place| *place != sys) {
        // -1 where the firmware says nothing.
        let node = read(&place.join("numa_node")).and_then(|text| text.parse().ok());
        if node.is_some() {
            return node;
        }
        let parts = parts(place);
        if !parts.is_empty() {
            let below = depth.checked_sub(1)?;
            let mut nodes = parts.iter().map(|part| of_path(sys, part, below));
            let first = nodes.next().flatten();
            return first.filter(|_| nodes.all(|node| node == first));
        }
    }
    None
}

/// What a virtual device is made of: disks of a volume, controllers of an NVMe subsystem.
fn parts(place: &Path) -> Vec<PathBuf> {
    let links = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
        links.map(|entry| entry.path()).collect()
    };
    let named = |path: &Path, start: &str| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
    };
    let mut parts = links(&place.join("slaves"));
    if named(place, "nvme-subsys") {
        parts.extend(links(place).into_iter().filter(|link| named(link, "nvme")));
    }
    parts.into_iter().filter_map(|part| part.canonicalize().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::samples::tree;
    use super::*;

    const NEAR: &str = "sys/devices/pci0000:00/0000:00:04.0";
    const FAR: &str = "sys/devices/pci0000:80/0000:80:01.0";

    /// `files`, and a link from each first path to each second one.
    fn check(links: &[(&str, &str)], expected: Option<usize>) {
        let (near, far) = (format!("{NEAR}/numa_node"), format!("{FAR}/numa_node"));
        let unknown = "sys/devices/pci0000:00/0000:00:05.0/numa_node";
        let root = tree(&[(&near, "0"), (&far, "1"), (unknown, "-1")]);
        for (from, to) in links {
            let (from, to) = (root.path().join(from), root.path().join(to));
            fs::create_dir_all(from.parent().unwrap()).unwrap();
            fs::create_dir_all(&to).unwrap();
            symlink(&to, &from).unwrap();
        }
        assert_eq!(of_device(root.path(), 259, 1), expected, "{links:?}");
    }

    #[test]
    fn the_node_of_a_disk_is_found_through_partitions_and_volumes() {
        let device = "sys/dev/block/259:1";
        let near = format!("{NEAR}/nvme/nvme0");
        let far = format!("{FAR}/nvme/nvme1");
        let (near_disk, far_disk) = (format!("{near}/nvme0n1"), format!("{far}/nvme1n1"));
        let far_partition = format!("{far_disk}/nvme1n1p2");
        check(&[(device, &far_partition)], Some(1));
        check(&[(device, "sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda")], None);
        check(&[], None);

        let volume = "sys/devices/virtual/block/dm-0";
        let (one, two) = (format!("{volume}/slaves/a"), format!("{volume}/slaves/b"));
        check(&[(device, volume), (&one, &far_partition)], Some(1));
        check(&[(device, volume), (&one, &far_disk), (&two, &far_partition)], Some(1));
        check(&[(device, volume), (&one, &far_disk), (&two, &near_disk)], None);
        check(&[(device, volume)], None);
        // A circle, which must end.
        check(&[(device, volume), (&one, volume)], None);

        let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
        let (disk, controller) = (format!("{subsystem}/nvme0n1"), format!("{subsystem}/nvme1"));
        check(&[(device, &disk), (&controller, &far)], Some(1));
    }

    #[test]
    fn a_directory_that_is_still_to_be_made_is_where_its_parent_is() {
        let root = tempfile::tempdir().unwrap();
        let device = fs::metadata(root.path()).unwrap().dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        let disk = format!("{FAR}/block/sda");
        let sys = tree(&[(&format!("{FAR}/numa_node"), "1"), (&format!("{disk}/size"), "8")]);
        let link = sys.path().join(format!("sys/dev/block/{major}:{minor}"));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(sys.path().join(disk), link).unwrap();
        assert_eq!(of_directory(sys.path(), &root.path().join("not/yet/made")), Some(1));
    }
}
