//! Replays the kept inputs of every target, without libFuzzer.

// A panic in a helper fails the test as well.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// In all; they are part of the repository.
const MOST_FILES: usize = 800;
const MOST_BYTES: u64 = 1024 * 1024;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The names of a folder's files and folders, without their endings.
fn names(folder: &str) -> BTreeSet<String> {
    let name = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    sorted(&root().join(folder)).iter().map(name).collect()
}

#[test]
fn no_kept_input_fails() {
    let mut failed = Vec::new();
    for target in fuzz::TARGETS {
        for path in sorted(&root().join("fuzz/corpus").join(target.name)) {
            let data = fs::read(&path).unwrap();
            if catch_unwind(|| (target.run)(&data)).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "what these inputs do is told above: {failed:#?}");
}

#[test]
fn every_target_has_a_binary_kept_inputs_and_a_row() {
    let targets: BTreeSet<String> = fuzz::TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names("fuzz/fuzz_targets"), targets);
    assert_eq!(names("fuzz/corpus"), targets);
    let manifest = read("fuzz/Cargo.toml");
    let binary = |line: &str| Some(line.strip_prefix("name = \"")?.strip_suffix('"')?.to_owned());
    let binaries: BTreeSet<String> =
        manifest.split("[[bin]]").skip(1).filter_map(|bin| bin.trim().lines().find_map(binary)).collect();
    assert_eq!(binaries, targets);
    let readme = read("fuzz/README.md");
    let row = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    assert_eq!(readme.lines().filter_map(row).collect::<BTreeSet<String>>(), targets);
    for target in &targets {
        let main = read(&format!("fuzz/fuzz_targets/{target}.rs"));
        assert!(main.contains(&format!("fuzz::run(\"{target}\", data)")), "{target} runs another one");
    }
}

/// A reader of bytes from outside that nobody feeds would be seen in no other test.
#[test]
fn every_file_that_a_row_names_is_there() {
    let readme = read("fuzz/README.md");
    let rows = readme.lines().filter(|line| line.starts_with("| `"));
    for row in rows {
        let files: Vec<&str> = row.split('`').filter(|word| word.starts_with("src/")).collect();
        assert!(!files.is_empty(), "{row} names no file");
        for file in files {
            assert!(root().join(file).exists(), "{file} is not there: {row}");
        }
    }
}

#[test]
fn the_kept_inputs_are_few_and_small() {
    let all = sorted(&root().join("fuzz/corpus"));
    let files: Vec<PathBuf> = all.iter().flat_map(|folder| sorted(folder)).collect();
    let bytes: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(files.len() <= MOST_FILES && bytes <= MOST_BYTES, "{} files, {bytes} bytes", files.len());
    assert!(all.iter().all(|folder| sorted(folder).len() >= 5), "a target with next to nothing kept");
}
