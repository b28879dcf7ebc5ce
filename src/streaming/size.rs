//! The size of a terminal, as clients write it.

use serde::Deserialize;

/// The longest text of one.
const MAX_SIZE: usize = 256;

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// The sizes that are complete with `more`. They follow each other without anything in between. A size of zero is none.
pub fn sizes(text: &mut Vec<u8>, more: &[u8]) -> Vec<(u32, u32)> {
    text.extend_from_slice(more);
    let mut stream = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
    let mut all = Vec::new();
    let mut broken = false;
    for size in &mut stream {
        match size {
            Ok(size) if size.width > 0 && size.height > 0 => all.push((size.width.into(), size.height.into())),
            Ok(_) => {}
            Err(e) => {
                broken = !e.is_eof();
                break;
            }
        }
    }
    let used = stream.byte_offset();
    match broken || text.len() - used > MAX_SIZE {
        true => text.clear(),
        false => drop(text.drain(..used)),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_any_pieces() {
        let text = br#"{"Width":80,"Height":24}{"Width":0,"Height":9}  {"Height":50,"Width":132}"#;
        for piece in 1..text.len() {
            let mut kept = Vec::new();
            let all: Vec<_> = text.chunks(piece).flat_map(|piece| sizes(&mut kept, piece)).collect();
            assert_eq!(all, [(80, 24), (132, 50)], "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_size_is_forgotten() {
        let mut kept = Vec::new();
        assert_eq!(sizes(&mut kept, b"{\"Width\":-1"), []);
        assert_eq!(sizes(&mut kept, b",}"), []);
        assert_eq!(sizes(&mut kept, &[b' '; 2 * MAX_SIZE]), []);
        assert_eq!(sizes(&mut kept, b"{\"Width\":1,\"Height\":2}"), [(1, 2)]);
    }
}
