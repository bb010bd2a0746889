//! The shim: built by the C compiler when a test needs it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The shim, built.
pub struct Shim {
    library: &'static Path,
}

impl Shim {
    pub fn new() -> Shim {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        Shim {
            library: BUILT.get_or_init(build),
        }
    }

    /// The environment in which everything that happens to files below `directory` is recorded.
    pub fn record(&self, directory: &Path) -> Vec<(String, String)> {
        self.environment(directory, "SHIM_TRACE", &trace_file(directory))
    }

    /// The environment in which the files in `faults` make log segments fail.
    pub fn fail(&self, directory: &Path, faults: &Path) -> Vec<(String, String)> {
        self.environment(directory, "SHIM_FAULTS", faults)
    }

    fn environment(&self, directory: &Path, name: &str, value: &Path) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("a path of UTF-8").to_owned();
        vec![
            ("LD_PRELOAD".to_owned(), text(self.library)),
            ("SHIM_DIR".to_owned(), text(directory)),
            (name.to_owned(), text(value)),
        ]
    }
}

pub(super) fn trace_file(directory: &Path) -> PathBuf {
    directory.join("trace")
}

fn build() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/disk/shim.c");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = target.join("crash-shim.so");
    let mine = target.join(format!("crash-shim-{}.so", std::process::id()));
    let status = Command::new("cc")
        .args([
            "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o",
        ])
        .args([&mine, &source])
        .status()
        .expect("a C compiler, cc, is there");
    assert!(status.success(), "cc cannot build {}", source.display());
    std::fs::rename(&mine, &library).expect("both are in one directory");
    library
}
