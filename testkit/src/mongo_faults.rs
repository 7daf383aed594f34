//! Makes a real MongoDB refuse commands of Hookgate by its `failCommand` fail point.

use mongodb::Database;
use mongodb::bson::{Bson, Document, doc};

use super::mongo::Mongo;
use super::wait::until;

/// The name under which Hookgate connects; other clients are not affected.
const APP_NAME: &str = "hookgate";

/// Commands that fail until [`Fault::end`].
#[derive(Debug)]
pub struct Fault {
    admin: Database,
}

impl Mongo {
    /// Makes these commands fail. `how` has an `errorCode`, perhaps `errorLabels`, or
    /// `closeConnection`. There is one fault at a time.
    pub async fn fail(&self, commands: &[&str], how: Document) -> Fault {
        let fault = self.fault().await;
        fault.configure(Bson::from("alwaysOn"), &data(commands, how)).await;
        fault
    }

    /// Makes the next `times` commands fail.
    pub async fn fail_times(&self, times: i32, commands: &[&str], how: Document) -> Fault {
        let fault = self.fault().await;
        fault.configure(Bson::from(doc! { "times": times }), &data(commands, how)).await;
        fault
    }

    /// The same as options for a server that starts with the fault.
    pub fn failing_from_the_start(commands: &[&str], how: Document) -> [String; 2] {
        let point = doc! { "mode": "alwaysOn", "data": data(commands, how) };
        let json = Bson::from(point).into_relaxed_extjson();
        ["--setParameter".to_owned(), format!("failpoint.failCommand={json}")]
    }

    /// The fault that is set on this server.
    pub async fn fault(&self) -> Fault {
        Fault { admin: self.client().await.database("admin") }
    }
}

impl Fault {
    /// Waits until the fault has been hit `times` times.
    pub async fn hit(&self, times: i64) {
        let command =
            doc! { "waitForFailPoint": "failCommand", "timesEntered": times, "maxTimeMS": 1000 };
        until(&format!("a command has failed {times} times"), async || {
            self.admin.run_command(command.clone()).await.is_ok()
        })
        .await;
    }

    pub async fn end(self) {
        self.configure(Bson::from("off"), &Document::new()).await;
    }

    async fn configure(&self, mode: Bson, data: &Document) {
        let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
        self.admin.run_command(command).await.expect("mongod allows fail points");
    }
}

fn data(commands: &[&str], how: Document) -> Document {
    let mut data = doc! { "failCommands": commands, "appName": APP_NAME };
    data.extend(how);
    data
}
