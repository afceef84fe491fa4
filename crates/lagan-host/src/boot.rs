//! The clock of the machine's run, which the standard library does not offer.

mod sys;

pub use sys::boot_time;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_rises_and_is_that_of_the_kernel() {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = text.split(' ').next().unwrap().parse().unwrap();
        let first = boot_time().unwrap();
        assert!(first.as_secs_f64() >= uptime - 1.0);
        assert!(boot_time().unwrap() >= first);
    }
}
