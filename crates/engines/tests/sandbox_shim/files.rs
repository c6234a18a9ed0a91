//! What a sandbox sees of the machine's files, and what it may write.

use std::path::Path;
use std::process::Command;

use dark_factory_engines::sandbox::config::Root;
use dark_factory_executor::spec::Access;
use dark_factory_types::ByteSize;

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

    fn files_and_folders_are_mounted_whatever_their_names(who) {
        let mut lab = Lab::new(who);
        let folder = lab.folder("a föld er \\ \n x");
        std::fs::write(folder.join("inner"), "inner\n").unwrap();
        let file = lab.file("file", "content\n");
        std::os::unix::fs::symlink(&file, lab.path("link")).unwrap();
        lab.bind(&folder, "/mnt/a föld er \\ \n x", Access::ReadOnly);
        lab.bind(&lab.path("link"), "/deep/er/file", Access::ReadOnly);
        lab.bind(&file, "/writable file", Access::ReadWrite);

        let said = lab.output_of(
            "cat /mnt/*/inner /deep/er/file; echo more >>'/writable file'; \
             touch /mnt/*/x 2>/dev/null && echo wrote; (echo x >/deep/er/file) 2>/dev/null && echo wrote; true",
        );

        assert_eq!(said, "inner\ncontent\n");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "content\nmore\n");
    }

    fn what_is_mounted_below_is_there_and_as_read_only_as_what_is_above(who) {
        let mut lab = Lab::new(who);
        let folder = lab.folder("folder");
        let below = lab.folder("folder/below");
        lab.bind(&folder, "/readable", Access::ReadOnly);
        lab.bind(&folder, "/writable", Access::ReadWrite);
        lab.script(
            "touch /writable/below/x && ls /readable/below; touch /readable/below/y 2>/dev/null && echo wrote; \
             cp /bin/true /writable/below; /writable/below/true 2>/dev/null || echo noexec",
        );
        lab.write_config();

        let status = lab.spawn_beside_mount(&below).wait().unwrap();

        assert!(status.success(), "{status}");
        assert_eq!(lab.output(), "x\nnoexec\n", "{:?}", lab.exit());
    }

    /// A prepared link in a workspace must not have a mount point made somewhere on the host.
    fn a_link_at_a_mount_point_leads_nowhere_on_the_host(who) {
        let mut lab = Lab::new(who);
        let outside = lab.folder("outside");
        let work = lab.folder("work");
        std::os::unix::fs::symlink(&outside, work.join("link")).unwrap();
        let file = lab.file("file", "content\n");
        lab.bind(&work, "/work", Access::ReadWrite);
        lab.bind(&file, "/work/link/target", Access::ReadOnly);
        lab.script("true");

        lab.run();

        let made: Vec<_> = std::fs::read_dir(&outside).unwrap().collect();
        assert!(made.is_empty(), "{made:?}");
    }

    fn a_mount_point_is_made_in_a_folder_that_is_read_only(who) {
        let mut lab = Lab::new(who);
        let file = lab.file("file", "content\n");
        lab.bind(&file, "/usr/share/new/file", Access::ReadOnly);

        let said = lab.output_of(
            "cat /usr/share/new/file; ls -d /usr/share/zoneinfo /usr/share/doc /usr/bin/env; touch /usr/share/x 2>&1",
        );

        assert!(said.starts_with("content\n/usr/bin/env\n/usr/share/doc\n/usr/share/zoneinfo\n"), "{said}");
        assert!(said.ends_with("Read-only file system\n"), "{said}");
        assert!(!Path::new("/usr/share/new").exists());
    }

    fn a_file_system_in_memory_has_its_size_and_number_of_files(who) {
        let mut lab = Lab::new(who);
        lab.config.tmpfs[0].size = ByteSize(1 << 20);
        lab.config.tmpfs[0].files = 10;

        let said = lab.output_of(
            "stat -c '%a %u' /tmp; head -c 2000000 /dev/zero 2>&1 >/tmp/big | grep -c space; rm /tmp/big; \
             for n in 1 2 3 4 5 6 7 8 9 10 11; do touch /tmp/$n; done 2>/dev/null; ls /tmp | wc -l",
        );

        assert_eq!(said, format!("1777 {}\n1\n9\n", who.inside()));
    }

    fn an_unpacked_root_file_system_is_the_root(who) {
        let mut lab = Lab::new(who);
        let root = lab.folder("rootfs");
        copy_shell(&root);
        std::fs::create_dir(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/marker"), "ours\n").unwrap();
        let chown = Command::new("chown")
            .args(["-R", &format!("{0}:{0}", who.inside())])
            .arg(&root)
            .status();
        assert!(chown.unwrap().success());
        lab.config.root = Root::Folder(root.clone());

        let said = lab.output_of(
            "read a </etc/marker; echo $a; read b </etc/hosts; echo $b; (: >/etc/new) 2>/dev/null || echo refused; \
             (: >/new) 2>/dev/null || echo refused; : >/tmp/new && echo /*",
        );

        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..4], ["ours", "127.0.0.1 localhost a-sandbox", "refused", "refused"]);
        assert!(!lines[4].contains("/usr"), "{said}");
        assert!(!root.join("new").exists() && !root.join("etc/hosts").exists());
    }
}

/// Copies the machine's shell and what it is linked with.
fn copy_shell(root: &Path) {
    let linked = Command::new("ldd").arg("/bin/sh").output().unwrap();
    let linked = String::from_utf8(linked.stdout).unwrap();
    let libraries = linked
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/bin/sh"]) {
        let to = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(file, to).unwrap();
    }
}
