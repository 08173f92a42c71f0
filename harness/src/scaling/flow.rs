use super::Hardware;

/// What a task that runs wants.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Of the thread that runs it.
    pub socket: usize,
    /// How much of itself it does in a second if memory is no limit.
    pub fastest: f64,
    /// Bytes that all of it reads of each socket's memory.
    pub sources: Vec<f64>,
}

impl Flow {
    fn bytes(&self) -> f64 {
        self.sources.iter().sum()
    }
}

/// Memory, or a way to it, that many share.
struct Resource {
    left: f64,
    /// Which share of its bytes each flow draws through it.
    shares: Vec<f64>,
}

/// How much of itself each does in a second: all get as many bytes in a second as one another, but for those that want or can take no more.
pub fn speeds(hardware: &Hardware, flows: &[Flow]) -> Vec<f64> {
    let mut speeds: Vec<_> = flows.iter().map(|flow| most(hardware, flow)).collect();
    let mut resources = resources(hardware, flows);
    let mut waiting: Vec<_> = (0..flows.len()).filter(|&i| flows[i].bytes() > 0.0).collect();
    let mut level = 0.0;
    while !waiting.is_empty() {
        let wanted = |i: usize| speeds[i] * flows[i].bytes();
        let drawn: Vec<f64> = resources
            .iter()
            .map(|resource| waiting.iter().map(|&i| resource.shares[i]).sum())
            .collect();
        let satisfied = waiting.iter().map(|&i| wanted(i) - level).fold(f64::INFINITY, f64::min);
        let used = resources.iter().zip(&drawn).filter(|(_, drawn)| **drawn > 0.0);
        let exhausted = used.map(|(resource, drawn)| resource.left / drawn);
        let rise = exhausted.fold(satisfied, f64::min).max(0.0);
        level += rise;
        for (resource, drawn) in resources.iter_mut().zip(drawn) {
            resource.left -= rise * drawn;
        }
        let is_full = |resource: &Resource| resource.left <= 1e-9 * level;
        let (done, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|&i| {
            wanted(i) <= level * (1.0 + 1e-12)
                || resources.iter().any(|resource| resource.shares[i] > 0.0 && is_full(resource))
        });
        for i in done {
            speeds[i] = speeds[i].min(level / flows[i].bytes());
        }
        waiting = others;
    }
    speeds
}

/// As if it were alone.
fn most(hardware: &Hardware, flow: &Flow) -> f64 {
    let seconds = |(socket, bytes): (usize, &f64)| {
        let share = if socket == flow.socket { 1.0 } else { hardware.remote_share };
        bytes / (hardware.core_bandwidth * share)
    };
    let reading: f64 = flow.sources.iter().enumerate().map(seconds).sum();
    flow.fastest.min(1.0 / reading)
}

fn resources(hardware: &Hardware, flows: &[Flow]) -> Vec<Resource> {
    let mut resources = Vec::new();
    for socket in 0..hardware.sockets {
        let share = |flow: &Flow| flow.sources[socket] / flow.bytes().max(f64::MIN_POSITIVE);
        let remote = |flow: &Flow| if flow.socket == socket { 0.0 } else { share(flow) };
        let memory = flows.iter().map(share).collect();
        let link = flows.iter().map(remote).collect();
        resources.push(Resource { left: hardware.socket_bandwidth, shares: memory });
        resources.push(Resource { left: hardware.link_bandwidth, shares: link });
    }
    resources
}
