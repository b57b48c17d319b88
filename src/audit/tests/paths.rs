//! Tile paths as the specification has them.

use crate::audit::{TileKind, TilePath};

#[test]
fn a_tile_has_one_path() {
    let check = |text: &str, expected: Option<(TileKind, u64, u64)>| {
        let parsed = TilePath::parse(text);
        let parts = parsed.map(|path| (path.kind, path.number, path.width));
        assert_eq!(parts, expected, "{text}");
        if let Some(path) = parsed {
            assert_eq!(path.to_string(), text);
        }
    };
    let hashes = |level| TileKind::Hashes(level);
    check("0/000", Some((hashes(0), 0, 256)));
    check("0/000.p/1", Some((hashes(0), 0, 1)));
    check("0/x001/x234/067", Some((hashes(0), 1_234_067, 256)));
    check("5/x999/999.p/255", Some((hashes(5), 999_999, 255)));
    check("63/000", Some((hashes(63), 0, 256)));
    check("entries/x001/000", Some((TileKind::Entries, 1000, 256)));
    check("entries/000.p/17", Some((TileKind::Entries, 0, 17)));
    check("0/x018/x446/x744/x073/x709/x551/615", Some((hashes(0), u64::MAX, 256)));
    for malformed in [
        "",
        "0",
        "0/",
        "/000",
        "00/000",
        "64/000",
        "256/000",
        "-1/000",
        "8/0/000",
        "0/0",
        "0/0000",
        "0/x000/000",
        "0/001/000",
        "0/xx01/000",
        "0/x001/x000",
        "0/+01",
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/01",
        "0/000.p/",
        "0/000.p",
        "0/000.p/1/",
        "0/000/",
        "0/x018/x446/x744/x073/x709/x551/616",
        "data/000",
        "entries/x000",
        "0/\u{663}00",
    ] {
        check(malformed, None);
    }
    assert_eq!(TilePath::parse("0/x018/x446/x744/x073/x709/x551/615").unwrap().end(), None);
    assert_eq!(TilePath::parse("0/001.p/3").unwrap().end(), Some(259));
}
