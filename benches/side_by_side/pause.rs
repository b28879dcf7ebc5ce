//! The program of the peer's pause image: the smallest there is, so that nothing but the peer is measured.

/// An ELF file of one page whose only code waits for signals for ever.
///
/// # Panics
/// On a machine that this has no code for.
pub fn program() -> Vec<u8> {
    let (machine, code): (u16, &[u8]) = match std::env::consts::ARCH {
        // mov eax, 34 (pause); syscall; jmp back
        "x86_64" => (62, &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]),
        // mov x0..x4, 0; mov x8, 73 (ppoll); svc 0; b back
        "aarch64" => (
            183,
            &[
                0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x04,
                0x00, 0x80, 0xd2, 0x28, 0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xf9, 0xff, 0xff, 0x17,
            ],
        ),
        other => panic!("the bench has no pause program for {other}"),
    };
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |bytes: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    let word = |bytes: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    let long = |bytes: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    // An executable; its entry; program headers after this one; no sections.
    half(&mut elf, &[2, machine]);
    word(&mut elf, &[1]);
    long(&mut elf, &[BASE + HEADERS, 64, 0]);
    word(&mut elf, &[0]);
    half(&mut elf, &[64, 56, 1, 0, 0, 0]);
    // Load all of it, to be read and run.
    word(&mut elf, &[1, 5]);
    long(&mut elf, &[0, BASE, BASE, size, size, 0x1000]);
    elf.extend(code);
    elf
}
