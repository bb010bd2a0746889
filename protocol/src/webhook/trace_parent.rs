//! The `traceparent` header (W3C Trace Context, Recommendation of 2021, §3.2).

use std::fmt;
use std::str::FromStr;

/// The position of a request in a trace: `00-<trace id>-<parent id>-<flags>`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceParent {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    sampled: bool,
}

impl TraceParent {
    /// The name of the header, and of the MQTT User Property that carries its value.
    pub const NAME: &'static str = "traceparent";

    /// The beginning of a new trace, from random bytes.
    pub fn new(random: [u8; 24], sampled: bool) -> TraceParent {
        let (mut trace_id, mut parent_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&random[..16]);
        parent_id.copy_from_slice(&random[16..]);
        TraceParent {
            trace_id: not_zero(trace_id),
            parent_id: not_zero(parent_id),
            sampled,
        }
    }

    /// The same trace one step further: what is sent on with the random bytes as its own id.
    pub fn child(&self, random: [u8; 8]) -> TraceParent {
        TraceParent {
            parent_id: not_zero(random),
            ..*self
        }
    }

    /// The id of the whole trace; never all zero.
    pub const fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The id of the step that made the request; never all zero.
    pub const fn parent_id(&self) -> [u8; 8] {
        self.parent_id
    }

    /// Whether the caller may have recorded the trace; the only flag that there is.
    pub const fn sampled(&self) -> bool {
        self.sampled
    }
}

/// Ids of zeros are invalid; one random value in 2^64 is one.
fn not_zero<const N: usize>(mut id: [u8; N]) -> [u8; N] {
    if id == [0; N] {
        id[N - 1] = 1;
    }
    id
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            u128::from_be_bytes(self.trace_id),
            u64::from_be_bytes(self.parent_id),
            u8::from(self.sampled)
        )
    }
}

/// Why a text is not a `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TraceParentError {
    /// Not four fields of lower-case hexadecimal digits: two, 32, 16 and two of them. Only a
    /// version after 00 may have more fields.
    Form,
    /// Version ff, which is invalid.
    Version,
    /// The trace id is all zero.
    TraceIdZero,
    /// The parent id is all zero.
    ParentIdZero,
}

impl TraceParentError {
    /// A sentence that says how to mend it.
    pub const fn as_str(self) -> &'static str {
        match self {
            TraceParentError::Form => {
                "a traceparent has the form 00-<32 hexadecimal digits>-<16>-<2>, in lower case"
            }
            TraceParentError::Version => "the version of a traceparent must not be ff",
            TraceParentError::TraceIdZero => "the trace id of a traceparent must not be all zero",
            TraceParentError::ParentIdZero => "the parent id of a traceparent must not be all zero",
        }
    }
}

impl fmt::Display for TraceParentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for TraceParentError {}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    /// A later version is read as far as version 00 goes (§4.3).
    fn from_str(text: &str) -> Result<TraceParent, TraceParentError> {
        const LEN: usize = 55;
        let (fields, rest) = text
            .as_bytes()
            .split_first_chunk::<LEN>()
            .ok_or(TraceParentError::Form)?;
        if [fields[2], fields[35], fields[52]] != [b'-'; 3] {
            return Err(TraceParentError::Form);
        }
        let [version] = hex(&fields[..2])?;
        let trace_id = hex(&fields[3..35])?;
        let parent_id = hex(&fields[36..52])?;
        let [flags] = hex(&fields[53..])?;
        if version == 0xFF {
            return Err(TraceParentError::Version);
        }
        if !rest.is_empty() && (version == 0 || rest[0] != b'-') {
            return Err(TraceParentError::Form);
        }
        if trace_id == [0; 16] {
            return Err(TraceParentError::TraceIdZero);
        }
        if parent_id == [0; 8] {
            return Err(TraceParentError::ParentIdZero);
        }
        Ok(TraceParent {
            trace_id,
            parent_id,
            sampled: flags & 1 != 0,
        })
    }
}

/// Lower-case hexadecimal digits, twice as many as bytes.
fn hex<const N: usize>(digits: &[u8]) -> Result<[u8; N], TraceParentError> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(TraceParentError::Form),
    };
    let mut bytes = [0; N];
    let (pairs, _) = digits.as_chunks::<2>();
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_recommendation() {
        let parent: TraceParent = EXAMPLE.parse().unwrap();
        assert_eq!(parent.trace_id()[..3], [0x4B, 0xF9, 0x2F]);
        assert_eq!(parent.parent_id()[5..], [0xA9, 0x02, 0xB7]);
        assert!(parent.sampled());
        assert_eq!(parent.to_string(), EXAMPLE);
        assert_eq!(
            parent.child([0; 8]).to_string(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01"
        );
        let later = format!("cc{}-what-the-future-will-be-like", &EXAMPLE[2..]);
        assert_eq!(later.parse(), Ok(parent));
        assert_eq!(
            TraceParent::new([0; 24], false).to_string(),
            "00-00000000000000000000000000000001-0000000000000001-00"
        );
    }

    #[test]
    fn what_is_none_gets_its_reason() {
        use TraceParentError::*;
        for (text, error) in [
            (String::new(), Form),
            (EXAMPLE[..54].to_owned(), Form),
            (format!("{EXAMPLE}-00"), Form),
            (format!("{EXAMPLE} "), Form),
            (format!("cc{}.x", &EXAMPLE[2..]), Form),
            (EXAMPLE.to_uppercase(), Form),
            (EXAMPLE.replace('-', "_"), Form),
            (EXAMPLE.replacen("4b", "+b", 1), Form),
            (format!("ff{}", &EXAMPLE[2..]), Version),
            (
                EXAMPLE.replace(&EXAMPLE[3..35], &"0".repeat(32)),
                TraceIdZero,
            ),
            (
                EXAMPLE.replace(&EXAMPLE[36..52], &"0".repeat(16)),
                ParentIdZero,
            ),
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(random: [u8; 24], own: [u8; 8], sampled: bool) {
            let new = TraceParent::new(random, sampled);
            prop_assert_eq!(new.to_string().parse(), Ok(new));
            let child = new.child(own);
            prop_assert_eq!(child.trace_id(), new.trace_id());
            prop_assert_eq!(child.to_string().parse(), Ok(child));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), near in "[0-9a-fé]{2}-[0-9a-fé]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?") {
            let _ = text.parse::<TraceParent>();
            let _ = near.parse::<TraceParent>();
        }
    }
}
