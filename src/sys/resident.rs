//! Memory of the program itself: what only the start needed is given back.

use std::fs;
use std::io;
use std::path::Path;

use super::check;

/// Unmaps the pages of code and constants of this program. Those that are needed again come back from the page cache,
/// where they stay as long as there is room; the others no longer count as ours.
pub fn give_back_program() -> io::Result<()> {
    let (program, maps) = (fs::read_link("/proc/self/exe")?, fs::read_to_string("/proc/self/maps")?);
    for (start, end) in constant(&maps, &program) {
        // SAFETY: a private mapping of a file that nobody can write to while it runs (ETXTBSY), and that we have never
        // written to: it cannot be written to, and lies below the part that the linker may have written to before it was
        // protected. Discarded pages are read from the file again, and are the same.
        check(unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) })?;
    }
    Ok(())
}

/// Where the mappings of `program` lie up to and with its code: constants, then code. Behind them are data, of which
/// some were written to and then protected.
fn constant(maps: &str, program: &Path) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for line in maps.lines() {
        // 00200000-00305000 r--p 00000000 fe:00 1234   /usr/local/bin/cricket
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights), Some(path)) = (words.next(), words.next(), words.nth(3)) else { continue };
        if Path::new(path) != program || !matches!(rights, "r--p" | "r-xp") {
            continue;
        }
        let bounds = range.split_once('-').and_then(|(start, end)| {
            Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
        });
        found.extend(bounds);
        if rights == "r-xp" {
            return found;
        }
    }
    // No code: that is not what we know.
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_written_to() {
        let maps = "\
00200000-00305000 r--p 00000000 fe:00 1234   /bin/cricket
00305000-006df000 r-xp 00105000 fe:00 1234   /bin/cricket
006df000-00708000 r--p 004df000 fe:00 1234   /bin/cricket
00708000-0070a000 rw-p 00508000 fe:00 1234   /bin/cricket
0070a000-0071d000 rw-p 00000000 00:00 0
7f0000000000-7f0000001000 r-xp 00000000 fe:00 99   /lib/other
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0   [vdso]
";
        let found = constant(maps, Path::new("/bin/cricket"));
        assert_eq!(found, [(0x200000, 0x305000), (0x305000, 0x6df000)]);
        assert!(constant(maps, Path::new("/bin/elsewhere")).is_empty());
        assert!(constant("nonsense\n", Path::new("/bin/cricket")).is_empty());
    }

    #[test]
    fn the_program_goes_on() {
        give_back_program().expect("given back");
        assert_eq!("still here".to_uppercase(), "STILL HERE");
    }
}
