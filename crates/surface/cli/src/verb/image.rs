//! `image`: root file systems on the nodes.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use prism_api::{ImageLoad, ImageView, Op};
use serde_json::Value;

use crate::exit::{Done, Exit, Failure};
use crate::listing::{WatchArgs, show};
use crate::output::{Column, Out, Table};
use crate::server::{Server, typed, typed_all};
use prism_client::Ask;

/// Load images and see which there are.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  prismctl image load ./alpine.tar --name alpine
  prismctl image load /srv/images/python-layout --node n1
  prismctl image ls

The built-in image `host` is each machine's own /usr, read-only; it is always
there.")]
pub enum ImageCommand {
    /// Load an OCI archive or layout directory that lies on the nodes' own disks
    Load {
        /// Archive or directory; a relative path is taken from here
        path: PathBuf,
        /// What to call it [default: as the archive says]
        #[arg(long)]
        name: Option<String>,
        /// Only on this node, by name or id [default: on all that are connected]
        #[arg(long)]
        node: Option<String>,
    },
    /// List the images and the nodes that have them
    Ls(WatchArgs),
}

/// Does it.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(command: ImageCommand, server: &Server, out: &Out) -> Done {
    match command {
        ImageCommand::Load { path, name, node } => {
            let body = ImageLoad {
                path: absolute(&path)?,
                name,
                node,
            };
            let answer = server.ask(Ask::new(Op::ImageLoad).json(&body)).await?;
            let image: ImageView = typed(&answer)?;
            out.doc(&answer, || table(std::slice::from_ref(&image)))?;
        }
        ImageCommand::Ls(watch) => {
            let rows = |items: &[Value]| Ok(table(&typed_all(items)?));
            show(server, out, Ask::new(Op::ImageList), 1_000_000, watch, rows).await?;
        }
    }
    Ok(Exit::Ok)
}

fn absolute(path: &Path) -> Result<String, Failure> {
    let whole = std::path::absolute(path)
        .map_err(|e| Failure::file(format!("{} is not a path: {e}", path.display())))?;
    whole.into_os_string().into_string().map_err(|p| {
        Failure::usage(format!(
            "the path {} is not UTF-8, so it cannot be sent",
            p.display()
        ))
    })
}

fn table(images: &[ImageView]) -> Table {
    let mut t = Table::new([("name", Column::Cut), ("nodes", Column::Cut)]);
    for image in images {
        t.row([image.name.clone(), image.nodes.join(", ")]);
    }
    t
}
