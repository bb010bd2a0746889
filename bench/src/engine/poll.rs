//! epoll and timerfd, as thin as possible.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// The token of the timer; connections are numbered from 0.
pub const TIMER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
}

impl Poll {
    pub fn new() -> io::Result<Poll> {
        // SAFETY: both calls return a new descriptor or -1, which is checked before it is owned.
        let (epoll, timer) = unsafe {
            let epoll = check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            let epoll = OwnedFd::from_raw_fd(epoll);
            let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
            let timer = check(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags))?;
            (epoll, OwnedFd::from_raw_fd(timer))
        };
        let poll = Poll {
            epoll,
            timer,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; 1024],
        };
        poll.control(libc::EPOLL_CTL_ADD, poll.timer.as_raw_fd(), TIMER, false)?;
        Ok(poll)
    }

    pub fn add(&self, fd: RawFd, token: u64, write: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, write)
    }

    pub fn change(&self, fd: RawFd, token: u64, write: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, write)
    }

    pub fn remove(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, false)
    }

    fn control(&self, what: libc::c_int, fd: RawFd, token: u64, write: bool) -> io::Result<()> {
        let interest = libc::EPOLLIN | if write { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event {
            events: interest as u32,
            u64: token,
        };
        // SAFETY: `event` outlives the call.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), what, fd, &mut event) })?;
        Ok(())
    }

    /// Wakes [`Poll::wait`] when the monotonic clock reaches `at_ns`.
    pub fn wake_at(&self, at_ns: u64) -> io::Result<()> {
        let at = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: (at_ns / 1_000_000_000) as i64,
                tv_nsec: (at_ns % 1_000_000_000) as i64,
            },
        };
        let flags = libc::TFD_TIMER_ABSTIME;
        // SAFETY: `at` outlives the call, and no old value is asked for.
        check(unsafe {
            libc::timerfd_settime(self.timer.as_raw_fd(), flags, &at, std::ptr::null_mut())
        })?;
        Ok(())
    }

    /// How many events there are now; read them with [`Poll::event`].
    pub fn wait(&mut self, timeout_ms: i32) -> io::Result<usize> {
        let room = self.events.len() as libc::c_int;
        // SAFETY: the kernel writes at most `room` events to a buffer of that size.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                room,
                timeout_ms,
            )
        };
        match check(count) {
            Ok(count) => Ok(count as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// The event at `index`; that of the timer is disarmed by this.
    pub fn event(&self, index: usize) -> Event {
        let event = self.events[index];
        let token = event.u64;
        let flags = event.events as libc::c_int;
        if token == TIMER {
            let mut expirations = [0u8; 8];
            // SAFETY: the buffer has the eight bytes that a timerfd gives.
            unsafe { libc::read(self.timer.as_raw_fd(), expirations.as_mut_ptr().cast(), 8) };
        }
        Event {
            token,
            readable: flags & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) != 0,
            writable: flags & libc::EPOLLOUT != 0,
        }
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
