//! Bytes being written and bytes being read.

use super::Property;

/// Bytes under construction, for whole packets and for the broken ones of `malformed.rs`.
#[derive(Clone, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn new() -> Bytes {
        Bytes::default()
    }

    pub fn u8(&mut self, value: u8) -> &mut Bytes {
        self.0.push(value);
        self
    }

    pub fn u16(&mut self, value: u16) -> &mut Bytes {
        self.raw(&value.to_be_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Bytes {
        self.raw(&value.to_be_bytes())
    }

    pub fn varint(&mut self, mut value: usize) -> &mut Bytes {
        loop {
            let digit = (value % 128) as u8;
            value /= 128;
            self.0.push(if value > 0 { digit | 0x80 } else { digit });
            if value == 0 {
                return self;
            }
        }
    }

    pub fn string(&mut self, value: &str) -> &mut Bytes {
        self.binary(value.as_bytes())
    }

    pub fn binary(&mut self, value: &[u8]) -> &mut Bytes {
        let length = u16::try_from(value.len()).expect("a string of at most 65,535 bytes");
        self.u16(length).raw(value)
    }

    pub fn raw(&mut self, value: &[u8]) -> &mut Bytes {
        self.0.extend_from_slice(value);
        self
    }

    pub fn properties(&mut self, properties: &[Property]) -> &mut Bytes {
        let mut section = Bytes::new();
        properties
            .iter()
            .for_each(|property| property.put(&mut section));
        self.varint(section.0.len()).raw(&section.0)
    }

    /// The packet with these bytes behind its fixed header.
    pub fn packet(&self, first_byte: u8) -> Vec<u8> {
        let mut packet = Bytes::new();
        packet.u8(first_byte).varint(self.0.len()).raw(&self.0);
        packet.0
    }
}

pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        if self.bytes.len() < length {
            return Err(format!(
                "{length} bytes expected, {} left",
                self.bytes.len()
            ));
        }
        let (taken, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes(
            self.take(2)?.try_into().expect("two bytes"),
        ))
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_be_bytes(
            self.take(4)?.try_into().expect("four bytes"),
        ))
    }

    pub(super) fn varint(&mut self) -> Result<usize, String> {
        let mut value = 0;
        for position in 0..4 {
            let byte = self.u8()?;
            value |= usize::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                return if position > 0 && byte == 0 {
                    Err("a length not minimally encoded".into())
                } else {
                    Ok(value)
                };
            }
        }
        Err("a length of more than four bytes".into())
    }

    pub(super) fn binary(&mut self) -> Result<Vec<u8>, String> {
        let length = self.u16()?;
        Ok(self.take(usize::from(length))?.to_vec())
    }

    pub(super) fn string(&mut self) -> Result<String, String> {
        let text =
            String::from_utf8(self.binary()?).map_err(|error| format!("invalid UTF-8: {error}"))?;
        if text.contains('\0') {
            Err(format!("U+0000 in {text:?}"))
        } else {
            Ok(text)
        }
    }

    pub(super) fn properties(&mut self) -> Result<Vec<Property>, String> {
        let length = self.varint()?;
        let mut section = Input {
            bytes: self.take(length)?,
        };
        let mut properties = Vec::new();
        while !section.bytes.is_empty() {
            properties.push(Property::read(&mut section)?);
        }
        Ok(properties)
    }

    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes).to_vec()
    }
}
