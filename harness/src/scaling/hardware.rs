use lfm2_kernels::linear::Activations;
use serde::Serialize;

/// A machine, as far as it matters here. Times are seconds, amounts bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Hardware {
    /// Cores of all sockets, one thread on each. The first socket is filled before the next.
    pub cores: usize,
    /// Sockets, each with its own memory.
    pub sockets: usize,
    /// What a core reads in a second from the memory of its socket.
    pub core_bandwidth: f64,
    /// What a socket's memory gives in a second to all that read it.
    pub socket_bandwidth: f64,
    /// What of that goes to other sockets at most.
    pub link_bandwidth: f64,
    /// What a core reads from another socket's memory, as a share of what it reads from its own.
    pub remote_share: f64,
    /// How long a thread takes to offer a task to others.
    pub offer: f64,
    /// How long it takes until another thread has it.
    pub take: f64,
    /// How much longer that is for each thread that there is, since it has to be found.
    pub look: f64,
    /// Where weights and caches lie.
    pub placement: Placement,
    /// How fast a core computes.
    pub rates: Rates,
}

/// On which sockets' memory the pages of weights and caches lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// All on the first: one thread wrote them.
    One,
    /// Page by page in turn.
    Interleaved,
    /// Where they are read: each socket has its own, or each thread reads what it wrote.
    Local,
}

/// What a core does in a second, from what its caches hold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Operations of a linear layer with many rows, by how it reads its input: `f32`, `int8`, `bf16`.
    pub linear: [f64; 3],
    /// Bytes of weights of a linear layer with one row.
    pub row: f64,
    /// How much longer than one row a few wait for memory: they ask for it less evenly.
    pub few_rows: f64,
    /// Operations of attention.
    pub attention: f64,
    /// Bytes that an operation on elements reads and writes.
    pub elements: f64,
    /// Bytes of activations that are quantised, rounded or copied to lie close.
    pub prepare: f64,
    /// Elements of keys and values that are put into the cache.
    pub cached: f64,
    /// Elements of embedding rows.
    pub embedded: f64,
    /// Angles whose sine and cosine are found.
    pub angles: f64,
}

impl Rates {
    /// Operations of a linear layer that reads its input so.
    pub fn of(&self, activations: Activations) -> f64 {
        let [f32, int8, bf16] = self.linear;
        match activations {
            Activations::F32 => f32,
            Activations::Int8 => int8,
            Activations::Bf16 => bf16,
        }
    }
}

impl Hardware {
    /// The machine of `kernels/docs/scaling.md`, with so many cores and sockets: cores as they were measured, sockets as they are sold.
    pub fn new(cores: usize, sockets: usize) -> Self {
        Self {
            cores,
            sockets,
            core_bandwidth: 38e9,
            socket_bandwidth: 300e9,
            link_bandwidth: 120e9,
            remote_share: 0.6,
            offer: 0.25e-6,
            take: 0.45e-6,
            look: 0.01e-6,
            placement: Placement::Interleaved,
            rates: Rates {
                linear: [250e9, 750e9, 505e9],
                row: 90e9,
                few_rows: 1.6,
                attention: 180e9,
                elements: 50e9,
                prepare: 21e9,
                cached: 6.6e8,
                embedded: 5e8,
                angles: 1e8,
            },
        }
    }

    /// The socket of a thread.
    pub(super) fn socket(&self, thread: usize) -> usize {
        thread * self.sockets / self.cores
    }

    /// What a thread reads of each socket's memory, of so many bytes.
    pub(super) fn sources(&self, thread: usize, bytes: f64) -> Vec<f64> {
        let own = self.socket(thread);
        let share = |socket| match self.placement {
            Placement::One => f64::from(u8::from(socket == 0)),
            Placement::Interleaved => 1.0 / self.sockets as f64,
            Placement::Local => f64::from(u8::from(socket == own)),
        };
        (0..self.sockets).map(|socket| bytes * share(socket)).collect()
    }
}
