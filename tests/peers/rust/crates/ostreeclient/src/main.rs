//! The command line of `ostree-ext`, the crate with which bootc and rpm-ostree import container images.
//! It starts whatever `skopeo` comes first on its PATH.

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    ostree_ext::cli::run_from_iter(std::env::args_os()).await
}
