//! What a sandbox sees of the machine's files, and what it may write.

use crate::both;
use crate::lab::Lab;

both! {
    fn only_what_is_meant_to_be_can_be_written(who) {
        let mut lab = Lab::new(who);

        let said = lab.output_of(
            "for place in / /usr /usr/bin /bin /etc /etc/ssl/certs /dev /proc/sys /home /var /run; do \
               touch $place/x 2>/dev/null && echo \"wrote $place\"; \
             done; \
             for place in /out /tmp /dev/shm; do touch $place/x && echo \"$place\"; done; \
             echo x >/dev/null && echo null",
        );

        assert_eq!(said, "/out\n/tmp\n/dev/shm\nnull\n");
        assert!(lab.path("out/x").exists());
    }

    fn the_machines_secrets_and_homes_are_not_there(who) {
        let mut lab = Lab::new(who);
        let secret = lab.file("secret", "a secret");

        let said = lab.output_of(&format!(
            "ls -d /etc/shadow /etc/ssl/private /etc/ssh /var/lib/docker /run/docker.sock /var/run/docker.sock /sys/class \
               {} 2>/dev/null; ls -A /home /root /run /tmp",
            secret.display(),
        ));

        assert_eq!(said, "/home:\n\n/root:\n\n/run:\n\n/tmp:\n");
    }
}
