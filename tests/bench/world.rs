//! A simulated organization: what its pages hold, and which requests read it whole.

use bytes::Bytes;
use std::time::Duration;

/// The API's largest page.
const PAGE: usize = 100;
/// The simulated organization.
#[derive(Clone, Copy, Debug)]
pub struct World {
    pub projects: usize,
    /// In each project.
    pub certificates: usize,
    /// How far each project's first certificate is from that of the project before it: 0 where all
    /// list the same ones, `certificates` where all are different.
    pub stride: usize,
    pub latency: Duration,
    /// Allowed requests per second; 0 is no limit. The bucket holds one second's worth.
    pub allowed: u32,
    /// When the certificates end, in Unix seconds.
    pub expires_at: u64,
}

impl World {
    /// One without latency or a limit.
    pub const fn of(projects: usize, certificates: usize, shared: bool) -> World {
        let latency = Duration::ZERO;
        let stride = if shared { 0 } else { certificates };
        World { projects, certificates, stride, latency, allowed: 0, expires_at: 4_000_000_000 }
    }

    /// Whether all projects list the same certificates.
    pub fn is_shared(&self) -> bool {
        self.stride == 0
    }

    /// As a process takes it for its arguments.
    pub fn arguments(&self) -> Vec<String> {
        let latency = self.latency.as_micros().to_string();
        let [projects, certificates, stride, allowed] =
            [self.projects, self.certificates, self.stride, self.allowed as usize]
                .map(|n| n.to_string());
        vec![projects, certificates, stride, latency, allowed, self.expires_at.to_string()]
    }

    /// Reads [`World::arguments`].
    pub fn parse(arguments: &[String]) -> Option<World> {
        let [projects, certificates, stride, latency, allowed, expires_at] = arguments else {
            return None;
        };
        Some(World {
            projects: projects.parse().ok()?,
            certificates: certificates.parse().ok()?,
            stride: stride.parse().ok()?,
            latency: Duration::from_micros(latency.parse().ok()?),
            allowed: allowed.parse().ok()?,
            expires_at: expires_at.parse().ok()?,
        })
    }

    /// The requests that read it whole: the pages of the lists of projects, of the organization's
    /// certificates and admin keys, and of each project's certificates.
    pub fn paths(&self) -> Vec<String> {
        let pages = |count: usize| count.div_ceil(PAGE).max(1);
        let mut paths = vec![
            "/v1/organization/certificates?limit=100".to_owned(),
            "/v1/organization/admin_api_keys?limit=100".to_owned(),
        ];
        let list = |path: &str, count: usize, id: &dyn Fn(usize) -> String| -> Vec<String> {
            let after = |page: usize| match page {
                0 => String::new(),
                page => format!("&after={}", id(page * PAGE - 1)),
            };
            (0..pages(count)).map(|page| format!("{path}?limit=100{}", after(page))).collect()
        };
        paths.extend(list("/v1/organization/projects", self.projects, &project_id));
        for project in 0..self.projects {
            let path = format!("/v1/organization/projects/{}/certificates", project_id(project));
            let first = self.first(project);
            paths.extend(list(&path, self.certificates, &|n| certificate_id(first + n)));
        }
        paths
    }

    /// The number of a project's first certificate.
    fn first(&self, project: usize) -> usize {
        project * self.stride
    }

    /// The page that a path and query ask for.
    pub fn page(&self, asked: &str) -> Option<Bytes> {
        let (path, query) = asked.split_once('?').unwrap_or((asked, ""));
        let path = path.strip_prefix("/v1/organization/")?;
        let after = query.split('&').find_map(|pair| pair.strip_prefix("after="));
        // An id ends with its number.
        let from = after.map_or(Some(0), |id| number(id).map(|n| n + 1))?;
        let text = match path {
            "certificates" | "admin_api_keys" => {
                list(0..0, 0, |_| String::new(), |_| String::new())
            }
            "projects" => list(from..self.projects, from, project_id, project),
            _ => {
                let id = path.strip_prefix("projects/")?.strip_suffix("/certificates")?;
                let first = self.first(number(id)?);
                let from = if after.is_some() { from } else { first };
                let certificate = |n| certificate(n, self.expires_at);
                list(from..first + self.certificates, from, certificate_id, certificate)
            }
        };
        Some(Bytes::from(text))
    }
}

fn list(
    rest: std::ops::Range<usize>,
    from: usize,
    id: impl Fn(usize) -> String,
    object: impl Fn(usize) -> String,
) -> String {
    let end = rest.end.min(from + PAGE);
    let data: Vec<String> = (from..end).map(object).collect();
    let quoted = |n: usize| if from < end { format!("\"{}\"", id(n)) } else { "null".to_owned() };
    let (first, last) = (quoted(from), quoted(end.saturating_sub(1)));
    let (data, more) = (data.join(","), end < rest.end);
    format!(
        r#"{{"object":"list","data":[{data}],"first_id":{first},"last_id":{last},"has_more":{more}}}"#
    )
}

fn number(id: &str) -> Option<usize> {
    id.rsplit('_').next()?.parse().ok()
}

fn project_id(n: usize) -> String {
    format!("proj_Zn3xQ0vK8s_{n:08}")
}

fn project(n: usize) -> String {
    let id = project_id(n);
    format!(
        r#"{{"id":"{id}","object":"organization.project","name":"service {n}","created_at":1711471533,"archived_at":null,"status":"active"}}"#
    )
}

fn certificate_id(n: usize) -> String {
    format!("cert_68d1f0a2c4_{n:08}")
}

fn certificate(n: usize, expires_at: u64) -> String {
    let id = certificate_id(n);
    format!(
        r#"{{"object":"organization.project.certificate","id":"{id}","name":"client ca {n}","created_at":1711471533,"certificate_details":{{"valid_at":1711471533,"expires_at":{expires_at}}},"active":true}}"#
    )
}
