//! Packets of the failure detector, read once before it sees them: what it would choke on is refused whole, and what is said about this
//! node or about nodes that there is no room for is known beforehand.

use foca::{Codec, Header, Member, Message, PostcardCodec};

use crate::protocol::peer::Peer;
use crate::protocol::refusal::Refusal;
use crate::protocol::seal::MAX_BODY;

/// Longest packet: a body less its byte of kind.
pub(crate) const MAX_PACKET: usize = MAX_BODY - 1;

/// A packet as it was read.
pub(crate) struct Packet {
    pub(crate) header: Header<Peer>,
    pub(crate) updates: Vec<Member<Peer>>,
}

/// Reads a whole packet; nothing may be left over.
pub(crate) fn read(mut bytes: &[u8]) -> Result<Packet, Refusal> {
    let header: Header<Peer> = PostcardCodec
        .decode_header(&mut bytes)
        .map_err(|_| Refusal::Malformed)?;
    let bare = header.message == Message::Announce;
    let mut updates = Vec::new();
    match *bytes {
        // We have letters of our own for profiles, and for telling a node that it is thought dead.
        _ if matches!(header.message, Message::Broadcast | Message::TurnUndead) => {
            return Err(Refusal::Malformed);
        }
        [] => {}
        [high, low, ref rest @ ..] if !bare => {
            bytes = rest;
            // Grows by what is really there, never by what the count promises.
            for _ in 0..u16::from_be_bytes([high, low]) {
                let member = PostcardCodec
                    .decode_member(&mut bytes)
                    .map_err(|_| Refusal::Malformed)?;
                updates.push(member);
            }
            if !bytes.is_empty() {
                return Err(Refusal::Malformed);
            }
        }
        _ => return Err(Refusal::Malformed),
    }
    Ok(Packet { header, updates })
}

/// Whether a packet that the detector wants to send tells a node that it is thought dead.
pub(crate) fn is_obituary(mut packet: &[u8]) -> bool {
    let header: Result<Header<Peer>, _> = PostcardCodec.decode_header(&mut packet);
    header.is_ok_and(|h| h.message == Message::TurnUndead)
}

/// Whether a packet that the detector wants to send is a probe, which its receiver answers at once.
pub(crate) fn is_probe(mut packet: &[u8]) -> bool {
    let header: Result<Header<Peer>, _> = PostcardCodec.decode_header(&mut packet);
    header.is_ok_and(|h| matches!(h.message, Message::Ping(_)))
}

/// The same packet without some of its updates.
pub(crate) fn write(packet: &Packet) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let count = u16::try_from(packet.updates.len()).map_err(|_| Refusal::Malformed)?;
    PostcardCodec
        .encode_header(&packet.header, &mut bytes)
        .map_err(|_| Refusal::Malformed)?;
    bytes.extend_from_slice(&count.to_be_bytes());
    for update in &packet.updates {
        PostcardCodec
            .encode_member(update, &mut bytes)
            .map_err(|_| Refusal::Malformed)?;
    }
    Ok(bytes)
}
