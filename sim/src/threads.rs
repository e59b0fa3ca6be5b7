//! Which threads of this process work, and which wait, by the kernel's word. Those of a machine are known to it; a thread that
//! nobody knows has only begun, or belongs to a file that is being written, and may work for anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Threads that work for one of all machines, or drive one.
static KNOWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// The threads of one machine.
#[derive(Default)]
pub(crate) struct Threads {
    /// By number, the kernel's account of it.
    own: Mutex<BTreeMap<i32, File>>,
    fewer: Condvar,
}

/// Somebody knows this thread until [`Known`] goes.
pub(crate) struct Known(i32);

impl Known {
    pub(crate) fn this() -> Known {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        known().insert(thread);
        Known(thread)
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        known().remove(&self.0);
    }
}

fn known() -> MutexGuard<'static, BTreeSet<i32>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Threads {
    fn own(&self) -> MutexGuard<'_, BTreeMap<i32, File>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This thread works for it from now on.
    pub(crate) fn add(&self, thread: &Known) -> io::Result<()> {
        self.own().insert(thread.0, File::open("/proc/thread-self/stat")?);
        Ok(())
    }

    /// It does not any more.
    pub(crate) fn remove(&self, thread: &Known) {
        self.own().remove(&thread.0);
        self.fewer.notify_all();
    }

    /// Waits until there are none, of the machine's time. False: there are.
    pub(crate) fn have_ended_within(&self, limit: Duration) -> bool {
        let left = self.fewer.wait_timeout_while(self.own(), limit, |own| !own.is_empty());
        left.is_ok_and(|(own, _)| own.is_empty())
    }

    /// Whether one of them works, or may.
    pub(crate) fn work(&self) -> bool {
        self.own().values().any(|account| works(account).unwrap_or(false))
            || strangers_work().unwrap_or(false)
    }
}

/// A thread that wants a processor works, whether it has one or not; one that has ended has no account.
fn works(account: &File) -> io::Result<bool> {
    let mut bytes = [0; 128];
    let length = account.read_at(&mut bytes, 0)?;
    // The state comes behind the name, which ends with the last bracket.
    let state = bytes[..length].iter().rposition(|byte| *byte == b')').and_then(|end| bytes.get(end + 2));
    Ok(state.is_some_and(|state| matches!(state, b'R' | b'D')))
}

fn strangers_work() -> io::Result<bool> {
    let mut strangers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task")? {
        let path = entry?.path();
        let thread = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        if thread.is_some_and(|thread: i32| !known().contains(&thread)) {
            strangers.push(path.join("stat"));
        }
    }
    Ok(strangers.iter().any(|path| File::open(path).and_then(|account| works(&account)).unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn a_thread_that_computes_works_and_one_that_waits_does_not() {
        let (threads, stop) = (Arc::new(Threads::default()), Arc::new(AtomicBool::new(false)));
        let (begun, has_begun) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let thread = std::thread::spawn({
            let (threads, stop) = (Arc::clone(&threads), Arc::clone(&stop));
            move || {
                let known = Known::this();
                threads.add(&known).expect("an account");
                begun.send(()).expect("somebody waits");
                while !stop.load(Ordering::SeqCst) {
                    std::hint::spin_loop();
                }
                goes_on.recv().expect("somebody sends");
                threads.remove(&known);
            }
        });
        has_begun.recv().expect("it begins");
        let one_works = || threads.own().values().any(|account| works(account).expect("an account"));
        assert!(one_works());
        stop.store(true, Ordering::SeqCst);
        while one_works() {
            std::thread::yield_now();
        }
        go_on.send(()).expect("it waits");
        assert!(threads.have_ended_within(Duration::from_secs(60)));
        thread.join().expect("it ends");
    }
}
