//! Which container a cgroup belongs to, as far as its path tells.

use std::sync::Arc;

use serde::Serialize;

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Container {
    /// What runs it: `docker`, `containerd`, `cri-o`, `podman`, `lxc`, `nspawn`, or `kubernetes` where only that shows.
    pub runtime: &'static str,
    /// Its id, or its name where the runtime uses names.
    pub id: Arc<str>,
    /// Unique id of its pod.
    pub pod: Option<Arc<str>>,
}

impl std::fmt::Display for Container {
    /// As the runtimes' own lists show it: ids cut to twelve digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = if is_id(&self.id) { self.id.get(..12) } else { None };
        write!(f, "{} {}", self.runtime, id.unwrap_or(&self.id))
    }
}

/// Scopes that systemd makes: `PREFIX-ID.scope`.
const SCOPES: [(&str, &str); 6] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    ("libpod-", "podman"),
    ("podman-", "podman"),
];

/// The innermost container that the path names.
#[must_use]
pub fn container(path: &str) -> Option<Container> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (at, (runtime, id)) = (0..parts.len()).rev().find_map(|at| Some((at, named(&parts, at)?)))?;
    Some(Container {
        runtime,
        id: id.into(),
        pod: parts.iter().take(at).rev().find_map(|part| pod(part)),
    })
}

/// The container that the part at a place of the path stands for.
fn named<'p>(parts: &[&'p str], at: usize) -> Option<(&'static str, &'p str)> {
    let part = *parts.get(at)?;
    let parent = at.checked_sub(1).and_then(|at| parts.get(at)).copied();
    let scope = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in SCOPES {
        if let Some(id) = scope.strip_prefix(prefix).filter(|id| is_id(id)) {
            return Some((runtime, id));
        }
    }
    if let Some(name) = part.strip_prefix("lxc.payload.").filter(|name| !name.is_empty()) {
        return Some(("lxc", name));
    }
    if let Some(name) = part
        .strip_prefix("machine-")
        .and_then(|name| name.strip_suffix(".scope"))
    {
        return Some(("nspawn", name));
    }
    match parent? {
        "docker" if is_id(part) => Some(("docker", part)),
        "lxc" => Some(("lxc", part)),
        parent if is_id(part) && pod(parent).is_some() => Some(("kubernetes", part)),
        _ => None,
    }
}

/// 64 hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The unique id of a pod: `podUID`, or `kubepods-burstable-podUID.slice` with underscores.
fn pod(part: &str) -> Option<Arc<str>> {
    let slice = part
        .strip_suffix(".slice")
        .and_then(|slice| Some(slice.rsplit_once("-pod")?.1));
    let uid = slice.or_else(|| part.strip_prefix("pod"))?.replace('_', "-");
    let is_uid = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then(|| uid.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const POD: &str = "6f2a1c5e-9d3b-4b7a-8f11-2c0e5a7d9b10";

    /// Runtime, id and pod.
    type Expected = Option<(&'static str, &'static str, Option<&'static str>)>;

    #[test]
    fn paths_of_the_known_runtimes() {
        let slice = POD.replace('-', "_");
        let cases: &[(String, Expected)] = &[
            (format!("/system.slice/docker-{ID}.scope"), Some(("docker", ID, None))),
            (format!("/docker/{ID}"), Some(("docker", ID, None))),
            (format!("/docker/{ID}/init.scope"), Some(("docker", ID, None))),
            (
                format!("/system.slice/nerdctl-{ID}.scope"),
                Some(("containerd", ID, None)),
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{ID}.scope"
                ),
                Some(("containerd", ID, Some(POD))),
            ),
            (
                format!("/kubepods.slice/kubepods-pod{slice}.slice/crio-{ID}.scope/container"),
                Some(("cri-o", ID, Some(POD))),
            ),
            (
                format!("/kubepods/besteffort/pod{POD}/{ID}"),
                Some(("kubernetes", ID, Some(POD))),
            ),
            (
                format!("/machine.slice/libpod-{ID}.scope/container"),
                Some(("podman", ID, None)),
            ),
            (
                format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"),
                Some(("podman", ID, None)),
            ),
            (format!("/libpod_parent/libpod-{ID}"), Some(("podman", ID, None))),
            ("/lxc/web".to_owned(), Some(("lxc", "web", None))),
            ("/lxc.payload.web/init.scope".to_owned(), Some(("lxc", "web", None))),
            (
                "/machine.slice/machine-deb12.scope".to_owned(),
                Some(("nspawn", "deb12", None)),
            ),
            // A container in a container: the inner one is meant.
            (
                format!("/docker/{}/docker/{ID}", "f".repeat(64)),
                Some(("docker", ID, None)),
            ),
            // The monitor beside a container is not in it.
            (format!("/machine.slice/libpod-conmon-{ID}.scope"), None),
            (format!("/kubepods.slice/crio-conmon-{ID}.scope"), None),
            // Not an id: too short, or no hexadecimal digits.
            ("/system.slice/docker-0123.scope".to_owned(), None),
            ("/system.slice/docker.service".to_owned(), None),
            (format!("/docker/{}", "g".repeat(64)), None),
            (format!("/somewhere/{ID}"), None),
            ("/lxc".to_owned(), None),
            ("/".to_owned(), None),
            (String::new(), None),
        ];
        for (path, expected) in cases {
            let found = container(path);
            let found = found.as_ref().map(|c| (c.runtime, &*c.id, c.pod.as_deref()));
            assert_eq!(found, *expected, "{path}");
        }
    }

    #[test]
    fn ids_are_cut_as_the_runtimes_cut_them_and_names_are_not() {
        let shown = |path: &str| container(path).map(|c| c.to_string());
        assert_eq!(shown(&format!("/docker/{ID}")).as_deref(), Some("docker 0123456789ab"));
        assert_eq!(
            shown("/lxc/a-long-name-of-a-container").as_deref(),
            Some("lxc a-long-name-of-a-container")
        );
    }
}
