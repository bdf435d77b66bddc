//! An open image, and its blobs by each of the crate's methods, as JSON: what was read or what failed.

use containers_image_proxy::oci_spec::image::{Digest, ImageManifest};
use containers_image_proxy::{BlobStreamSource, Error, ImageProxy, OpenedImage};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::future::Future;
use tokio::io::{AsyncRead, AsyncReadExt};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T> = std::result::Result<T, Failure>;

#[derive(Clone)]
pub struct Layer {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
}

pub struct Image {
    pub id: OpenedImage,
    pub digest: String,
    pub raw: Vec<u8>,
    pub manifest: ImageManifest,
    pub info: Option<Vec<Layer>>,
    pub layers: Vec<Layer>,
}

/// Open, manifest, layer info. Layers are what a client of ostree-ext's kind asks for: the layer
/// info's where the place may keep them in another form than the manifest says.
pub async fn open(proxy: &ImageProxy, name: &str) -> Result<Image> {
    let id = proxy.open_image(name).await?;
    let (digest, raw) = proxy.fetch_manifest_raw_oci(&id).await?;
    let manifest: ImageManifest = serde_json::from_slice(&raw)?;
    let info = proxy.get_layer_info(&id).await?.map(|layers| {
        Vec::from_iter(layers.into_iter().map(|it| Layer {
            digest: it.digest,
            size: it.size,
            media_type: it.media_type.to_string(),
        }))
    });
    let in_manifest = manifest.layers().iter().map(|it| Layer {
        digest: it.digest().clone(),
        size: it.size(),
        media_type: it.media_type().to_string(),
    });
    let elsewhere = ["containers-storage:", "docker-daemon:"];
    let layers = match &info {
        Some(info) if elsewhere.iter().any(|it| name.starts_with(it)) => info.clone(),
        _ => in_manifest.collect(),
    };
    Ok(Image {
        id,
        digest,
        raw,
        manifest,
        info,
        layers,
    })
}

pub fn described(layer: &Layer) -> Value {
    let digest = layer.digest.to_string();
    json!({"digest": digest, "size": layer.size, "media_type": layer.media_type})
}

fn content(nbytes: usize, hash: Sha256) -> Value {
    json!({"sha256": hex::encode(hash.finalize()), "nbytes": nbytes})
}

pub fn document(raw: &[u8]) -> Value {
    content(raw.len(), Sha256::new_with_prefix(raw))
}

/// Read to the end.
pub async fn hashed(mut reader: impl AsyncRead + Unpin) -> Result<Value> {
    let (mut hash, mut nbytes, mut buffer) = (Sha256::new(), 0, vec![0; 64 << 10]);
    loop {
        let n = reader.read(&mut buffer).await?;
        if n == 0 {
            return Ok(content(nbytes, hash));
        }
        hash.update(&buffer[..n]);
        nbytes += n;
    }
}

/// Reader and driver together: either alone would wait for the other. What the server says counts
/// for more than what the reader saw of it.
pub async fn joined<T, E: Into<Error>>(
    reader: impl Future<Output = Result<T>>,
    driver: impl Future<Output = std::result::Result<(), E>>,
) -> Result<T> {
    let (read, told) = tokio::join!(reader, driver);
    told.map_err(E::into)?;
    read
}

pub fn fault(at: &str, error: Failure) -> Value {
    let retryable = error.downcast_ref().is_some_and(Error::is_retryable);
    json!({"at": at, "error": error.to_string(), "retryable": retryable})
}

/// A blob by GetBlob: its content, or at which call it failed and why.
pub async fn by_get_blob(
    proxy: &ImageProxy,
    id: &OpenedImage,
    digest: &Digest,
    size: u64,
) -> Value {
    match proxy.get_blob(id, digest, size).await {
        Err(error) => fault("GetBlob", error.into()),
        Ok((reader, driver)) => joined(hashed(reader), driver)
            .await
            .unwrap_or_else(|error| fault("FinishPipe", error)),
    }
}

/// A blob by GetRawBlob, whose driver is the pipe for errors.
pub async fn by_get_raw_blob(proxy: &ImageProxy, id: &OpenedImage, digest: &Digest) -> Value {
    match proxy.get_raw_blob(id, digest).await {
        Err(error) => fault("GetRawBlob", error.into()),
        Ok((size, reader, driver)) => match joined(hashed(reader), driver).await {
            Err(error) => fault("the pipe for errors", error),
            Ok(mut found) => {
                found["told_size"] = size.into();
                found
            }
        },
    }
}

/// A blob by whichever of the two the crate takes, checked by the crate as well.
pub async fn by_stream(proxy: &ImageProxy, id: &OpenedImage, digest: &Digest, size: u64) -> Value {
    match proxy.get_blob_stream(id, digest, size).await {
        Err(error) => fault("get_blob_stream", error.into()),
        Ok(stream) => {
            let raw = stream.source() == BlobStreamSource::GetRawBlob;
            let (reader, driver) = stream.into_parts();
            match joined(hashed(reader), driver).await {
                Err(error) => fault("the driver", error),
                Ok(mut found) => {
                    found["source"] = if raw { "GetRawBlob" } else { "GetBlob" }.into();
                    found
                }
            }
        }
    }
}
