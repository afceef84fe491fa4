//! Rows in a snapshot's piece: `key length u32, value length u32, key, value`,
//! little endian, one after the other.

/// Appends a row.
pub(super) fn push_row(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// The piece ends inside a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("snapshot piece ends inside a row")]
pub(crate) struct Torn;

/// Reads the rows of a piece.
pub(crate) struct RowReader<'a> {
    rest: &'a [u8],
}

impl<'a> RowReader<'a> {
    pub fn new(piece: &'a [u8]) -> Self {
        RowReader { rest: piece }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Torn> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Torn)?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_len(&mut self) -> Result<usize, Torn> {
        let raw = self.take(4)?.try_into().map_err(|_| Torn)?;
        Ok(u32::from_le_bytes(raw) as usize)
    }

    fn row(&mut self) -> Result<(&'a [u8], &'a [u8]), Torn> {
        let (key_len, value_len) = (self.take_len()?, self.take_len()?);
        Ok((self.take(key_len)?, self.take(value_len)?))
    }
}

impl<'a> Iterator for RowReader<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Torn>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let row = self.row();
        if row.is_err() {
            self.rest = &[];
        }
        Some(row)
    }
}
