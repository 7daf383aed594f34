//! A simulation of the queue: the real batcher, delivery, isolation and connections run on a
//! stopped clock against a simulated network and the model of the script.
//!
//! Everything that happens in a run follows from its seed: the same seed gives the same events, to
//! the word. A seed that breaks a promise is printed with its trace.
//!
//! | module | has |
//! |---|---|
//! | `plan` | what a seed chooses before its run |
//! | `world` | the two servers, clocks, and everything else that happens to them |
//! | `server` | one server: the model of the script, and the other commands |
//! | `failover` | replication, failovers and restarts |
//! | `link`, `network` | connections that are cut, silenced and deliver wrong replies |
//! | `connector` | the network in the place of fred |
//! | `callers` | callers that send, leave and send again |
//! | `ledger` | what was sent, replied, answered and lost |
//! | `judge` | the promises |
//! | `run` | a run, and the search through seeds |
//! | `tests` | the short and the long form |

mod callers;
mod connector;
mod failover;
mod judge;
mod ledger;
mod link;
mod network;
mod plan;
mod run;
mod server;
mod tests;
mod trace;
mod world;
