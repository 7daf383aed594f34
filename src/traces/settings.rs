//! The section `[telemetry.otlp]`.

use crate::settings::Section;

/// The section `[telemetry.otlp]`.
#[derive(Debug, Clone)]
pub struct TracesSettings {
    /// The URL of the collector; `None`: nothing is traced.
    pub(super) endpoint: Option<String>,
    pub(super) sample_ratio: f64,
}

impl TracesSettings {
    pub fn read(section: &mut Section<'_>) -> Self {
        let endpoint: String = section.value("endpoint", String::new());
        if !endpoint.is_empty() && !is_collector(&endpoint) {
            section.fault(
                "endpoint",
                "not the address of a collector; write it like \"http://collector:4317\" or \
                 \"https://collector:4317\", without path and password",
            );
        }
        let sample_ratio = section.value("sample_ratio", 0.01);
        if !(0.0..=1.0).contains(&sample_ratio) {
            section.fault("sample_ratio", "not between 0 and 1");
        }
        Self { endpoint: Some(endpoint).filter(|endpoint| !endpoint.is_empty()), sample_ratio }
    }

    /// Whether requests are traced.
    pub fn are_enabled(&self) -> bool {
        self.endpoint.is_some()
    }
}

/// Whether a URL has a scheme of gRPC, a host, perhaps a port, and no more.
fn is_collector(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(authority) = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest)) else {
        return false;
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = address.map_or_else(
        || !host.is_empty() && host.bytes().all(is_host_byte),
        |address| address.parse::<std::net::Ipv6Addr>().is_ok(),
    );
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SettingsReader;

    #[test]
    fn a_collector_is_a_scheme_a_host_and_a_port() {
        for url in [
            "http://collector:4317",
            "https://otel.example.com",
            "https://otel.example.com:443/",
            "http://127.0.0.1:4317",
            "http://[::1]:4317",
            "http://[::1]",
        ] {
            assert!(is_collector(url), "{url}");
        }
        for url in [
            "collector:4317",
            "grpc://collector:4317",
            "http://",
            "http://:4317",
            "http://collector:0",
            "http://collector:port",
            "http://collector:4317/v1/traces",
            "http://user:secret@collector:4317",
            "http://[::1",
            "http://::1:4317",
            "http://collector?token=secret",
        ] {
            assert!(!is_collector(url), "{url}");
        }
    }

    #[test]
    fn faults_do_not_repeat_the_endpoint() {
        let file = "[telemetry.otlp]\nendpoint = \"http://u:hidden@c\"\nsample_ratio = 1.5\n";
        let mut settings = SettingsReader::new(toml::from_str(file).unwrap(), std::iter::empty());
        TracesSettings::read(&mut settings.section("telemetry.otlp"));
        let faults: Vec<String> = settings.into_faults().iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(!faults.concat().contains("hidden"), "{faults:?}");
    }
}
