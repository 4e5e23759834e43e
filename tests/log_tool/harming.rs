//! Whatever happens to the files: no tool ever prints something else than what was written, and what
//! `repair` makes is sound and holds everything that was. The harm is random; the number of a case
//! that fails says it again (`TIDEGATE_HARM=NUMBER`).

use std::fs;
use std::path::{Path, PathBuf};

use crate::data::{contents, log};
use crate::golden::{check_same_records, everything, read};

const CASES: u64 = 24;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit.max(1) as u64) as usize
    }
}

/// Does something to one or two files, the manifest apart. Returns what.
fn harm(dir: &Path, random: &mut Random) -> String {
    let mut files: Vec<PathBuf> = contents(dir).into_iter().map(|(path, _)| path).collect();
    files.retain(|path| path.extension().is_none_or(|ending| ending != "json"));
    let path = files[random.below(files.len())].clone();
    let mut bytes = fs::read(&path).unwrap();
    // Where something is in use, mostly.
    let at = random.below(bytes.len().min(6 << 10));
    let name = path.strip_prefix(dir).unwrap().display().to_string();
    match random.below(6) {
        // Of what an earlier harm left nothing of.
        0..3 if bytes.is_empty() => format!("{name} is empty"),
        0 | 1 => {
            bytes[at] ^= 1 << random.below(8);
            fs::write(&path, bytes).unwrap();
            format!("a bit of {name} at {at} flipped")
        }
        2 => {
            let sector = at / 512 * 512;
            let end = (sector + 512).min(bytes.len());
            bytes[sector..end].fill(0);
            fs::write(&path, bytes).unwrap();
            format!("{name} zeroed from {sector}")
        }
        3 => {
            bytes.truncate(at);
            fs::write(&path, bytes).unwrap();
            format!("{name} cut to {at}")
        }
        4 => {
            fs::remove_file(&path).unwrap();
            format!("{name} removed")
        }
        _ => {
            let other = &files[random.below(files.len())];
            fs::copy(other, &path).unwrap();
            format!("{name} replaced by {}", other.display())
        }
    }
}

fn lines(dir: &Path) -> Vec<String> {
    let mut lines: Vec<_> = log("dump", dir, &["--json"]).1.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

#[test]
fn whatever_is_harmed_nothing_wrong_is_printed_and_a_repair_is_sound() {
    let only = std::env::var("TIDEGATE_HARM").ok().map(|number| number.parse().unwrap());
    for case in only.map_or(0..CASES, |only: u64| only..only + 1) {
        let (scratch, dir) = everything();
        let written = lines(&dir);
        let mut random = Random(case);
        let harms: Vec<_> = (0..1 + random.below(3)).map(|_| harm(&dir, &mut random)).collect();
        let context = format!("case {case}: {}", harms.join("; "));
        let (code, report, err) = log("verify", &dir, &["--json"]);
        assert!(code <= 1 && report.starts_with('{'), "{context}: {report}{err}");
        let sound = lines(&dir);
        let invented: Vec<_> = sound.iter().filter(|line| !written.contains(line)).collect();
        assert!(invented.is_empty(), "{context}: {invented:?}");

        let to = scratch.path().join("mended");
        let (code, told, err) = log("repair", &dir, &["--to", to.to_str().unwrap()]);
        assert_eq!(code, 0, "{context}: {told}{err}");
        let (code, told, err) = log("repair", &dir, &["--in-place"]);
        assert_eq!(code, 0, "{context}: {told}{err}");
        for mended in [&to, &dir] {
            let (code, report, _) = log("verify", mended, &[]);
            assert_eq!(code, 0, "{context}: {report}");
            let kept = lines(mended);
            assert!(sound.iter().all(|line| kept.contains(line)), "{context}: less than before");
            assert!(kept.iter().all(|line| written.contains(line)), "{context}: made up");
            let (code, records, err) = read(mended);
            assert_eq!(code, 0, "{context}: {err}");
            // What retention let go of: that log start may be among what was harmed.
            let first = "\"plain\",\"partition\":0,\"offset\":0,";
            let let_go = if records.contains(first) { "none" } else { first };
            check_same_records(&records, &kept.join("\n"), let_go);
        }
    }
}
