//! One reused block of memory between the socket and the row decoders.
//!
//! Packets are handed out as slices of the block. A payload of 16 MiB and more arrives in parts; the parts are moved together so that
//! it is handed out as one slice too. A block that grew for one long row shrinks again once it is empty.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What is read at once when rows are short.
const BLOCK: usize = 256 * 1024;
/// A block larger than this is given back when it is empty.
const KEEP: usize = 4 * BLOCK;
const HEADER: usize = 4;
const FULL_PART: usize = 0xFF_FFFF;

/// Bytes that have arrived and are not handed out yet: `block[start..end]`.
pub(super) struct PacketBuffer {
    block: Vec<u8>,
    start: usize,
    end: usize,
    /// How much the packet at `start` needs in all, once its header has been seen to exceed what is there.
    wanted: usize,
}

impl PacketBuffer {
    pub(super) fn new() -> Self {
        Self { block: vec![0; BLOCK], start: 0, end: 0, wanted: HEADER }
    }

    /// Whether a whole packet, all its parts included, has arrived.
    pub(super) fn has_packet(&mut self) -> bool {
        let mut offset = 0;
        loop {
            let available = self.end - self.start - offset;
            if available < HEADER {
                self.wanted = offset + HEADER;
                return false;
            }
            let length = self.part_length(self.start + offset);
            offset += HEADER + length;
            if self.end - self.start < offset {
                self.wanted = offset;
                return false;
            }
            if length < FULL_PART {
                return true;
            }
        }
    }

    /// The payload and sequence number of the packet that [`Self::has_packet`] found.
    pub(super) fn take(&mut self) -> (&[u8], u8) {
        let length = self.part_length(self.start);
        let sequence = self.block[self.start + 3];
        let from = self.start + HEADER;
        if length < FULL_PART {
            self.start = from + length;
            return (&self.block[from..from + length], sequence);
        }
        self.take_parts(from)
    }

    /// Reads from the socket into the free end of the block; 0 means that the peer has closed.
    pub(super) async fn fill(&mut self, socket: &mut (impl AsyncRead + Unpin)) -> std::io::Result<usize> {
        self.make_room();
        let read = socket.read(&mut self.block[self.end..]).await?;
        self.end += read;
        Ok(read)
    }

    fn take_parts(&mut self, from: usize) -> (&[u8], u8) {
        let mut length = FULL_PART;
        let mut next = from + length;
        loop {
            let part = self.part_length(next);
            let sequence = self.block[next + 3];
            self.block.copy_within(next + HEADER..next + HEADER + part, from + length);
            length += part;
            next += HEADER + part;
            if part < FULL_PART {
                self.start = next;
                return (&self.block[from..from + length], sequence);
            }
        }
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.block.len() > KEEP && self.wanted <= BLOCK {
                self.block = vec![0; BLOCK];
            }
        }
        if self.start + self.wanted.max(HEADER) > self.block.len() || self.end == self.block.len() {
            self.block.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.wanted > self.block.len() {
            // Grows by doubling, so that a very long row is not moved once per read.
            let size = self.wanted.max(self.block.len() * 2);
            self.block.resize(size, 0);
        }
    }

    fn part_length(&self, at: usize) -> usize {
        usize::from(self.block[at]) | usize::from(self.block[at + 1]) << 8 | usize::from(self.block[at + 2]) << 16
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut framed = Vec::new();
        let mut parts: Vec<&[u8]> = payload.chunks(FULL_PART).collect();
        if payload.len().is_multiple_of(FULL_PART) {
            parts.push(&[]);
        }
        for (sequence, part) in parts.iter().enumerate() {
            framed.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
            framed.push(sequence as u8);
            framed.extend_from_slice(part);
        }
        framed
    }

    async fn read_all(mut bytes: &[u8], count: usize) -> Vec<Vec<u8>> {
        let mut buffer = PacketBuffer::new();
        let mut packets = Vec::new();
        while packets.len() < count {
            if buffer.has_packet() {
                packets.push(buffer.take().0.to_vec());
            } else {
                assert!(buffer.fill(&mut bytes).await.unwrap() > 0, "{} of {count} packets", packets.len());
            }
        }
        packets
    }

    #[tokio::test]
    async fn packets_come_out_as_they_went_in_whatever_the_block_holds() {
        let payloads: Vec<Vec<u8>> = (0..2000usize).map(|i| vec![i as u8; (i * 37) % 1500]).collect();
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| frame(payload)).collect();
        assert_eq!(read_all(&stream, payloads.len()).await, payloads);
    }

    #[tokio::test]
    async fn long_payloads_are_joined_from_their_parts() {
        for length in [FULL_PART - 1, FULL_PART, FULL_PART + 1, 2 * FULL_PART, 2 * FULL_PART + 5] {
            let payload: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut stream = frame(&payload);
            stream.extend(frame(b"next"));
            let packets = read_all(&stream, 2).await;
            assert!(packets[0] == payload, "length {length}");
            assert_eq!(packets[1], b"next");
        }
    }

    #[tokio::test]
    async fn a_block_that_grew_for_one_row_shrinks_again() {
        let mut stream = frame(&vec![7; 8 * BLOCK]);
        stream.extend(frame(b"short"));
        let mut input = stream.as_slice();
        let mut buffer = PacketBuffer::new();
        for _ in 0..2 {
            while !buffer.has_packet() {
                buffer.fill(&mut input).await.unwrap();
            }
            buffer.take();
        }
        buffer.has_packet();
        buffer.make_room();
        assert_eq!(buffer.block.len(), BLOCK);
    }
}
