//! Packs the files that the admin interface serves, while the broker is built: the program has them once, and as small as
//! they are sent.

fn main() {
    println!("cargo:rerun-if-changed=src/admin/pack.rs");
    #[cfg(feature = "admin")]
    packing::pack_all();
}

#[cfg(feature = "admin")]
mod packing {
    use std::fs;
    use std::io::Write;
    use std::path::{Path, PathBuf};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    const FOLDERS: [&str; 2] = ["src/admin/dashboard", "src/admin/openapi"];
    const ENDINGS: [&str; 5] = ["html", "js", "css", "svg", "json"];

    pub fn pack_all() {
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("Cargo sets it"));
        for folder in FOLDERS {
            println!("cargo:rerun-if-changed={folder}");
            for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder}: {error}")) {
                let file = entry.unwrap_or_else(|error| panic!("{folder}: {error}")).path();
                let ending = file.extension().and_then(|ending| ending.to_str());
                if ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
                    pack(&file, &out);
                }
            }
        }
    }

    fn pack(file: &Path, out: &Path) {
        let plain = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let packed = encoder.write_all(&plain).and_then(|()| encoder.finish());
        let packed = packed.expect("writing to a Vec does not fail");
        let mut name = file.file_name().expect("it is an entry of a folder").to_owned();
        name.push(".gz");
        let to = out.join(name);
        fs::write(&to, packed).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    }
}
