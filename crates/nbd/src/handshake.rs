//! The fixed newstyle handshake: structured replies, meta contexts, GO.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::error::NbdError;

const MAGIC: u64 = 0x4e42_444d_4147_4943; // "NBDMAGIC"
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054; // "IHAVEOPT"
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;
const OPTION_GO: u32 = 7;
const OPTION_STRUCTURED_REPLY: u32 = 8;
const OPTION_SET_META_CONTEXT: u32 = 10;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_META_CONTEXT: u32 = 4;
const REPLY_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;
/// Longest reply to an option: names and messages are short; more is a lie.
const REPLY_BYTES_MAX: u32 = 64 * 1024;
/// Most replies to one option, so that a server cannot keep us here.
const REPLIES_MAX: usize = 64;

/// What the handshake agreed upon.
#[derive(Debug)]
pub(crate) struct Agreement {
    /// Size of the export, bytes.
    pub size: u64,
    /// Ids of the meta contexts, in the order in which they were asked for.
    pub context_ids: Vec<u32>,
}

/// Shakes hands for `export` and asks for `contexts`, all of which must be there.
pub(crate) async fn shake(
    stream: &mut UnixStream,
    export: &str,
    contexts: &[&str],
) -> Result<Agreement, NbdError> {
    let mut greeting = read(stream, 18).await?;
    if greeting.get_u64() != MAGIC || greeting.get_u64() != OPTION_MAGIC {
        return Err(NbdError::Protocol { what: "it does not greet like a newstyle server" });
    }
    let flags = greeting.get_u16();
    if flags & FIXED_NEWSTYLE == 0 {
        return Err(NbdError::Protocol { what: "it does not speak the fixed newstyle" });
    }
    write(stream, &u32::from(flags & (FIXED_NEWSTYLE | NO_ZEROES)).to_be_bytes()).await?;

    send_option(stream, OPTION_STRUCTURED_REPLY, &[]).await?;
    replies(stream, OPTION_STRUCTURED_REPLY, "structured replies", export, |_, _| Ok(())).await?;
    let context_ids =
        if contexts.is_empty() { Vec::new() } else { ask_contexts(stream, export, contexts).await? };
    let size = go(stream, export).await?;
    Ok(Agreement { size, context_ids })
}

async fn ask_contexts(
    stream: &mut UnixStream,
    export: &str,
    contexts: &[&str],
) -> Result<Vec<u32>, NbdError> {
    let mut data = BytesMut::new();
    put_string(&mut data, export);
    data.put_u32(u32::try_from(contexts.len()).expect("a handful of contexts"));
    for context in contexts {
        put_string(&mut data, context);
    }
    send_option(stream, OPTION_SET_META_CONTEXT, &data).await?;
    let mut found: Vec<(u32, Bytes)> = Vec::new();
    replies(stream, OPTION_SET_META_CONTEXT, "meta contexts", export, |kind, mut reply| {
        if kind != REPLY_META_CONTEXT || reply.len() < 4 {
            return Err(NbdError::Protocol { what: "a strange reply to the meta contexts" });
        }
        let id = reply.get_u32();
        found.push((id, reply));
        Ok(())
    })
    .await?;
    let id_of = |context: &&str| {
        let id = found.iter().find(|(_, name)| name.as_ref() == context.as_bytes()).map(|(id, _)| *id);
        id.ok_or_else(|| NbdError::NoContext { context: (*context).to_owned(), export: export.to_owned() })
    };
    contexts.iter().map(id_of).collect()
}

async fn go(stream: &mut UnixStream, export: &str) -> Result<u64, NbdError> {
    let mut data = BytesMut::new();
    put_string(&mut data, export);
    data.put_u16(0);
    send_option(stream, OPTION_GO, &data).await?;
    let mut size = None;
    replies(stream, OPTION_GO, "the export", export, |kind, mut reply| {
        if kind == REPLY_INFO && reply.len() >= 10 && reply.get_u16() == INFO_EXPORT {
            size = Some(reply.get_u64());
        }
        Ok(())
    })
    .await?;
    match size {
        Some(size) if size <= extent::END_MAX => Ok(size),
        Some(_) => Err(NbdError::Protocol { what: "an export larger than any disk" }),
        None => Err(NbdError::Protocol { what: "an export without a size" }),
    }
}

async fn send_option(stream: &mut UnixStream, option: u32, data: &[u8]) -> Result<(), NbdError> {
    let mut message = BytesMut::with_capacity(16 + data.len());
    message.put_u64(OPTION_MAGIC);
    message.put_u32(option);
    message.put_u32(u32::try_from(data.len()).expect("options are short"));
    message.put_slice(data);
    write(stream, &message).await
}

/// Reads the replies to one option until its acknowledgement; `each` sees all others.
async fn replies(
    stream: &mut UnixStream,
    option: u32,
    name: &'static str,
    export: &str,
    mut each: impl FnMut(u32, Bytes) -> Result<(), NbdError>,
) -> Result<(), NbdError> {
    for _ in 0..REPLIES_MAX {
        let mut head = read(stream, 20).await?;
        if head.get_u64() != REPLY_MAGIC || head.get_u32() != option {
            return Err(NbdError::Protocol { what: "a reply to an option that was not asked" });
        }
        let (kind, length) = (head.get_u32(), head.get_u32());
        if length > REPLY_BYTES_MAX {
            return Err(NbdError::Protocol { what: "an overlong reply to an option" });
        }
        let reply = read(stream, length as usize).await?;
        match kind {
            REPLY_ACK => return Ok(()),
            kind if kind & REPLY_ERROR != 0 => {
                let message = String::from_utf8_lossy(&reply).into_owned();
                return Err(NbdError::Refused {
                    option: name,
                    export: export.to_owned(),
                    reply: kind,
                    message,
                });
            }
            kind => each(kind, reply)?,
        }
    }
    Err(NbdError::Protocol { what: "too many replies to one option" })
}

fn put_string(data: &mut BytesMut, text: &str) {
    data.put_u32(u32::try_from(text.len()).expect("names are short"));
    data.put_slice(text.as_bytes());
}

async fn read(stream: &mut UnixStream, length: usize) -> Result<Bytes, NbdError> {
    let mut data = vec![0; length];
    let doing = "shaking hands";
    stream.read_exact(&mut data).await.map_err(|source| NbdError::Connection { doing, source })?;
    Ok(Bytes::from(data))
}

async fn write(stream: &mut UnixStream, data: &[u8]) -> Result<(), NbdError> {
    let doing = "shaking hands";
    stream.write_all(data).await.map_err(|source| NbdError::Connection { doing, source })
}
