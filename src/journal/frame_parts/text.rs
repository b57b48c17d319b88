//! Looking for something in headers, and writing digits.

use memchr::memmem::Finder;

/// How much there is in front of the next token.
pub(super) fn plain_len(text: &[u8]) -> Option<usize> {
    const STEP: usize = 32;
    let is_token = |byte: &u8| *byte < 0x20;
    let mut from = 0;
    // Headers are long, and looking at a whole step is one instruction or two.
    while let Some(step) = text.get(from..from + STEP) {
        if step.iter().fold(false, |some, byte| some | is_token(byte)) {
            break;
        }
        from += STEP;
    }
    text[from..].iter().position(is_token).map(|at| from + at)
}

/// What stands up to the end of what is looked for, and what behind it.
pub(super) fn split_behind<'a>(text: &'a [u8], field: &Finder<'_>) -> Option<(&'a [u8], &'a [u8])> {
    let at = field.find(text)?;
    text.split_at_checked(at + field.needle().len())
}

/// The same, with the number behind it taken off.
pub(super) fn number_behind<'a>(
    text: &'a [u8],
    field: &Finder<'_>,
) -> Option<(&'a [u8], u64, &'a [u8])> {
    let (before, rest) = split_behind(text, field)?;
    let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, after) = rest.split_at(len);
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })?;
    (decimal_len(number) == len).then_some((before, number, after))
}

pub(super) fn decimal_len(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

pub(super) fn put_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

pub(super) fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

pub(super) fn put_hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.extend_from_slice(&hex_pair(*byte));
    }
}

pub(super) fn hex_pair(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

pub(super) fn take<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(taken)
}

pub(super) fn take_array<'a, const N: usize>(input: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(taken)
}
