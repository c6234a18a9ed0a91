# A hundred thousand files.
for my $folder (1 .. 100) {
    mkdir "many$folder" or die;
    for my $name (1 .. 1000) {
        sysopen(my $file, "many$folder/$name", O_CREAT | O_WRONLY) or die "$folder/$name: $!";
    }
}
print "done: all made\n";
