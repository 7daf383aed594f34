//! The notices of third parties in the image.

use std::fs;
use std::path::Path;

use super::ROOT;

#[test]
fn the_image_contains_the_notices() {
    let dockerfile = read("Dockerfile");
    let ignored = read(".dockerignore");
    for name in ["about.hbs", "about.toml", "deploy/sbom", "deploy/split-symbols", "LICENSE"] {
        assert!(ignored.lines().any(|line| line == format!("!{name}")), "{name} is in no context");
        assert!(Path::new(ROOT).join(name).exists(), "{name}");
    }
    let generated = "--fail --output-file /THIRD-PARTY-NOTICES about.hbs";
    let copied = "COPY --from=notices /THIRD-PARTY-NOTICES /hookgate.cdx.json /build/LICENSE /usr/share/doc/hookgate/";
    for line in [generated, copied] {
        assert!(dockerfile.contains(line), "{line}");
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).expect("it exists")
}
