//! How messages become bytes and bytes messages: prost, with buffers for small messages and errors that clients can read.
//!
//! The generated code names [`Codec`] for every RPC, those of the clients included. It knows nothing of frames and sizes:
//! the server's intake has seen to both before a message comes here.

use std::{fmt, marker::PhantomData};

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, DecodeBuf, EncodeBuf},
};

use super::status::{Failure, Reason};

/// Bytes of the first buffer of each direction of each call. tonic takes 8 KiB; most messages here have less than 100 B.
const BUFFER_BYTES: usize = 512;

/// Ready messages of a stream are packed into one frame until they are about this large (tonic's own default).
const PACK_BYTES: usize = 32 << 10;

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, PACK_BYTES)
}

/// Encodes `T` and decodes `U`.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> fmt::Debug for Codec<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codec")
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Encoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder(PhantomData)
    }
}

/// Encodes `T`, with room for all of it made at once: a large one is not moved as it grows.
pub struct Encoder<T>(PhantomData<T>);

impl<T> fmt::Debug for Encoder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoder")
    }
}

impl<T: Message> tonic::codec::Encoder for Encoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, bytes: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes.reserve(message.encoded_len());
        message.encode_raw(bytes);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

/// Decodes `U`; what is no `U` is `INVALID_MESSAGE`.
pub struct Decoder<U>(PhantomData<U>);

impl<U> fmt::Debug for Decoder<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoder")
    }
}

impl<U: Message + Default> tonic::codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message = U::decode(bytes)
            .map_err(|error| Failure::new(Reason::InvalidMessage, format!("the message can't be decoded: {error}")))?;
        Ok(Some(message))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}
