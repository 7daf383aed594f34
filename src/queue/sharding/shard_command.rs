//! `hookgate shard`: says which queue gets the jobs of an organization.

use crate::ids::OrganizationId;
use crate::queue::settings::QueueSettings;
use crate::queue::sharding::shard_map::ShardMap;
use anyhow::Context;
use std::io::{BufRead, Write};
use std::sync::Arc;

/// An argument that stands for the lines of the standard input.
const INPUT: &str = "-";

/// Writes a line for each organization: the organization, a tab, and the name of its queue. Empty
/// lines of the input are skipped.
pub fn print_shards(
    settings: &QueueSettings,
    organizations: &[String],
    input: impl BufRead,
    output: &mut impl Write,
) -> anyhow::Result<()> {
    let shards = Shards { map: settings.shard_map(), queues: settings.queues() };
    let mut input = Some(input);
    for argument in organizations {
        if argument != INPUT {
            shards.print(argument, output)?;
            continue;
        }
        for line in input.take().into_iter().flat_map(BufRead::lines) {
            let line = line.context("standard input")?;
            if !line.is_empty() {
                shards.print(&line, output)?;
            }
        }
    }
    Ok(output.flush()?)
}

struct Shards {
    map: ShardMap,
    queues: Vec<Arc<QueueSettings>>,
}

impl Shards {
    fn print(&self, organization: &str, output: &mut impl Write) -> anyhow::Result<()> {
        let id = OrganizationId::new(organization).with_context(|| format!("{organization:?}"))?;
        let queue = self.queues.get(self.map.index_of(&id)).context("the map has these queues")?;
        Ok(writeln!(output, "{organization}\t{}", queue.name())?)
    }
}
