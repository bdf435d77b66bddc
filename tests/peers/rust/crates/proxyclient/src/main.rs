//! A client of the image-proxy protocol over `containers-image-proxy`, the crate that bootc and
//! rpm-ostree use: it speaks to whatever server it is told to start, and says what it got.
//!
//! ```text
//! proxyclient [--proxy PROGRAM [--proxy-arg A]...] [--authfile F | --no-creds] [--cert-dir D]
//!             [--insecure-tls] [--insecure-policy] [--user-agent-prefix S] [--out FILE] SCENARIO
//! scenarios:  read IMAGE...            every document and layer, in every way that there is
//!             descriptor IMAGE...      the config, by its descriptor
//!             optional IMAGE...        whether it is there
//!             drop IMAGE               leave a layer after 64 KiB, then read the next
//!             two IMAGE IMAGE          both open at once
//!             errors IMAGE UNKNOWN...  what must fail, and that the server goes on
//!             cycle N IMAGE            open, read the manifest, close, N times
//!             decompress IMAGE         inflate every layer and throw it away, with times
//! ```
//!
//! Without `--proxy` the server is what the crate starts by itself, `skopeo`. One JSON object is
//! printed, or written to FILE. `decompress` takes layers as ostree-ext does: one after the other,
//! through the buffers and decoders that it has; its MultiGzDecoder reads one more kind of blob.

mod blobs;

use blobs::{Result, open};
use blobs::{by_get_blob, by_get_raw_blob, by_stream, described, document, fault, hashed, joined};
use containers_image_proxy::oci_spec::image::Digest;
use containers_image_proxy::{ImageProxy, ImageProxyConfig};
use serde_json::{Value, json};
use std::io::{BufReader, Read, copy, sink};
use std::process::{Command, ExitCode};
use std::str::FromStr;
use std::time::Instant;
use tokio::io::AsyncReadExt;
use tokio_util::io::SyncIoBridge;

const EARLY: u64 = 64 << 10;
const NOWHERE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[tokio::main(flavor = "current_thread")] // as bootc's
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxyclient: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let (config, out, words) = arguments(std::env::args().skip(1))?;
    let proxy = ImageProxy::new_with_config(config).await?;
    let mut report = scenario(&proxy, &words).await?;
    report["protocol"] = proxy.protocol_version().to_string().into();
    report["finalize"] = match proxy.finalize().await {
        Ok(()) => "ok".into(),
        Err(error) => error.to_string().into(),
    };
    let (client, server) = cpu_seconds()?;
    report["cpu_s"] = json!({"client": client, "proxy": server});
    match out {
        Some(path) => std::fs::write(path, report.to_string())?,
        None => println!("{report}"),
    }
    Ok(())
}

fn arguments(
    mut words: impl Iterator<Item = String>,
) -> Result<(ImageProxyConfig, Option<String>, Vec<String>)> {
    let mut config = ImageProxyConfig::default();
    let (mut out, mut positional, mut program, mut options) = (None, vec![], None, vec![]);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--proxy" => program = Some(value()?),
            "--proxy-arg" => options.push(value()?),
            "--authfile" => config.authfile = Some(value()?.into()),
            "--no-creds" => config.auth_anonymous = true,
            "--cert-dir" => config.certificate_directory = Some(value()?.into()),
            "--insecure-tls" => config.insecure_skip_tls_verification = Some(true),
            "--insecure-policy" => config.insecure_policy = Some(true),
            "--user-agent-prefix" => config.user_agent_prefix = Some(value()?),
            "--out" => out = Some(value()?),
            _ if word.starts_with("--") => return Err(format!("unknown option {word}").into()),
            _ => positional.push(word),
        }
    }
    if let Some(program) = program {
        let mut command = Command::new(program);
        command.args(options);
        config.skopeo_cmd = Some(command);
    }
    Ok((config, out, positional))
}

async fn scenario(proxy: &ImageProxy, words: &[String]) -> Result<Value> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["read", ref names @ ..] => {
            let mut images = vec![];
            for name in names {
                images.push(read(proxy, name).await?);
            }
            Ok(json!({ "images": images }))
        }
        ["descriptor", ref names @ ..] => descriptors(proxy, names).await,
        ["optional", ref names @ ..] => optional(proxy, names).await,
        ["drop", name] => leave_early(proxy, name).await,
        ["two", one, other] => two(proxy, one, other).await,
        ["errors", name, ref unknown @ ..] => errors(proxy, name, unknown).await,
        ["cycle", n, name] => cycle(proxy, n.parse()?, name).await,
        ["decompress", name] => decompress(proxy, name).await,
        _ => Err(format!("no such scenario: {}", words.join(" ")).into()),
    }
}

async fn read(proxy: &ImageProxy, name: &str) -> Result<Value> {
    let image = open(proxy, name).await?;
    let config = proxy.fetch_config_raw(&image.id).await?;
    let mut layers = vec![];
    for layer in &image.layers {
        let (id, digest) = (&image.id, &layer.digest);
        let mut entry = described(layer);
        entry["blob"] = by_get_blob(proxy, id, digest, layer.size).await;
        entry["stream"] = by_stream(proxy, id, digest, layer.size).await;
        if proxy.supports_get_raw_blob() {
            entry["raw"] = by_get_raw_blob(proxy, id, digest).await;
        }
        layers.push(entry);
    }
    proxy.close_image(&image.id).await?;
    Ok(json!({
        "image": name,
        "digest": image.digest,
        "manifest": document(&image.raw),
        "config": document(&config),
        "layer_info": image.info.map(|info| Vec::from_iter(info.iter().map(described))),
        "layers": layers,
    }))
}

async fn descriptors(proxy: &ImageProxy, names: &[&str]) -> Result<Value> {
    let mut found = vec![];
    for name in names {
        let image = open(proxy, name).await?;
        let wanted = image.manifest.config();
        let config = match proxy.get_descriptor(&image.id, wanted).await {
            Err(error) => fault("GetBlob", error.into()),
            Ok((reader, driver)) => joined(hashed(reader), driver)
                .await
                .unwrap_or_else(|error| fault("FinishPipe", error)),
        };
        found.push(json!({"digest": wanted.digest().to_string(), "config": config}));
        proxy.close_image(&image.id).await?;
    }
    Ok(json!({ "images": found }))
}

async fn optional(proxy: &ImageProxy, names: &[&str]) -> Result<Value> {
    let mut found = vec![];
    for name in names {
        found.push(match proxy.open_image_optional(name).await {
            Ok(image) => json!({"found": image.is_some()}),
            Err(error) => fault("OpenImageOptional", error.into()),
        });
    }
    Ok(json!({ "images": found }))
}

/// Of a layer read the first bytes only; then the next one whole, by each method.
async fn leave_early(proxy: &ImageProxy, name: &str) -> Result<Value> {
    let image = open(proxy, name).await?;
    let [first, next, ..] = &image.layers[..] else {
        return Err(format!("{name} has fewer than two layers").into());
    };
    let (reader, driver) = proxy.get_blob(&image.id, &first.digest, first.size).await?;
    let early = hashed(reader.take(EARLY)).await?;
    let ended = driver
        .await
        .map_err(|error| fault("FinishPipe", error.into()));
    let blob = by_get_blob(proxy, &image.id, &next.digest, next.size).await;
    let mut report = json!({"early": early, "ended": ended.err(), "next": blob});
    if proxy.supports_get_raw_blob() {
        let (_, reader, driver) = proxy.get_raw_blob(&image.id, &first.digest).await?;
        report["raw_early"] = hashed(reader.take(EARLY)).await?;
        let ended = driver
            .await
            .map_err(|error| fault("the pipe for errors", error.into()));
        report["raw_ended"] = ended.err().into();
        report["raw_next"] = by_get_raw_blob(proxy, &image.id, &next.digest).await;
    }
    Ok(report)
}

async fn two(proxy: &ImageProxy, one: &str, other: &str) -> Result<Value> {
    let images = [open(proxy, one).await?, open(proxy, other).await?];
    let [a, b] = &images;
    let (mut alternately, mut together) = (vec![], vec![]);
    for (x, y) in a.layers.iter().zip(&b.layers) {
        for (image, layer) in [(a, x), (b, y)] {
            alternately.push(by_get_blob(proxy, &image.id, &layer.digest, layer.size).await);
        }
    }
    for (x, y) in a.layers.iter().zip(&b.layers) {
        let (left, end) = proxy.get_blob(&a.id, &x.digest, x.size).await?;
        let (right, other_end) = proxy.get_blob(&b.id, &y.digest, y.size).await?;
        let both = tokio::join!(joined(hashed(left), end), joined(hashed(right), other_end));
        together.extend([both.0?, both.1?]);
    }
    proxy.close_image(&a.id).await?;
    proxy.close_image(&b.id).await?;
    Ok(json!({"alternately": alternately, "together": together}))
}

async fn errors(proxy: &ImageProxy, name: &str, unknown: &[&str]) -> Result<Value> {
    let mut refused = vec![];
    for other in unknown {
        let opened = proxy.open_image(other).await;
        refused.push(opened.err().map(|error| fault("OpenImage", error.into())));
    }
    let image = open(proxy, name).await?;
    let (id, first) = (
        &image.id,
        image.layers.first().ok_or("an image without layers")?,
    );
    let (right, wrong) = (&first.digest, &Digest::from_str(NOWHERE)?);
    let mut report = json!({
        "unknown": refused,
        "wrong digest": by_get_blob(proxy, id, wrong, first.size).await,
        "wrong size": by_get_blob(proxy, id, right, first.size + 1).await,
        "wrong digest, stream": by_stream(proxy, id, wrong, first.size).await,
        "wrong size, stream": by_stream(proxy, id, right, first.size + 1).await,
    });
    if proxy.supports_get_raw_blob() {
        report["wrong digest, raw"] = by_get_raw_blob(proxy, id, wrong).await;
    }
    report["then"] = by_get_blob(proxy, id, right, first.size).await;
    Ok(report)
}

async fn cycle(proxy: &ImageProxy, n: u32, name: &str) -> Result<Value> {
    let n_fds = || std::fs::read_dir("/proc/self/fd").map(Iterator::count);
    let (mut digests, mut before) = (std::collections::BTreeSet::new(), 0);
    for at in 0..n {
        let id = proxy.open_image(name).await?;
        let (digest, _) = proxy.fetch_manifest(&id).await?;
        digests.insert(digest);
        proxy.close_image(&id).await?;
        if at == 0 {
            before = n_fds()?;
        }
    }
    Ok(json!({
        "cycles": n,
        "digests": digests,
        "fds": [before, n_fds()?],
        "varlink": proxy.supports_open_varlink_socket(),
    }))
}

async fn decompress(proxy: &ImageProxy, name: &str) -> Result<Value> {
    let began = Instant::now();
    let image = open(proxy, name).await?;
    proxy.fetch_config_raw(&image.id).await?;
    let (mut nbytes, mut taken) = (0, 0);
    for layer in &image.layers {
        let (reader, driver) = proxy.get_blob(&image.id, &layer.digest, layer.size).await?;
        let (bridge, kind) = (SyncIoBridge::new(reader), layer.media_type.clone());
        let work = async { tokio::task::spawn_blocking(move || inflated(bridge, &kind)).await? };
        nbytes += joined(work, driver).await?;
        taken += layer.size;
    }
    proxy.close_image(&image.id).await?;
    Ok(json!({
        "layers": image.layers.len(),
        "blob_nbytes": taken,
        "nbytes": nbytes,
        "seconds": began.elapsed().as_secs_f64(),
    }))
}

/// How many bytes a layer of this media type is when uncompressed. Reads to the end of the blob.
fn inflated(mut blob: impl Read, media_type: &str) -> Result<u64> {
    let nbytes = if media_type.ends_with("gzip") {
        copy(
            &mut flate2::bufread::MultiGzDecoder::new(BufReader::new(&mut blob)),
            &mut sink(),
        )?
    } else if media_type.ends_with("zstd") {
        copy(
            &mut zstd::stream::read::Decoder::new(&mut blob)?,
            &mut sink(),
        )?
    } else {
        copy(&mut blob, &mut sink())?
    };
    copy(&mut blob, &mut sink())?;
    Ok(nbytes)
}

/// Of this process, and of the server once it has been waited for. Linux counts 1/100 s (proc(5)).
fn cpu_seconds() -> Result<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields = after_name
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(str::parse::<u32>);
    match fields.collect::<std::result::Result<Vec<_>, _>>()?[..] {
        [user, system, server_user, server_system] => Ok((
            f64::from(user + system) / 100.0,
            f64::from(server_user + server_system) / 100.0,
        )),
        _ => Err("/proc/self/stat is too short".into()),
    }
}
