package main

// recipe is an image: what it is called, what is in it, and how it is stored.
type recipe struct {
	// References, of any registry.
	names []string
	// File trees, lowest first.
	trees []string
	// What makes it another image than one with the same trees.
	label string
	user  string
	cmd   []string
	form  form
}

// form is how an image is stored; a runtime must read all of them.
type form int

const (
	// An index whose first entry is for another platform.
	ociIndex form = iota
	// The same of Docker's media types.
	dockerList
	// A manifest without an index, its layers not compressed.
	ociPlain
)

const (
	e2e     = "registry.k8s.io/e2e-test-images/"
	criTool = "gcr.io/k8s-staging-cri-tools/"
	library = "public.ecr.aws/docker/library/busybox:"
	// standIn is pulled by digest. The digest that the suite compiles in belongs to content that is on the internet
	// only; the suite is built with the digest of this one.
	standIn = criTool + "test-image-digest:stand-in"
)

var (
	shell = []string{"sh"}
	nginx = []string{"nginx", "-g", "daemon off;"}
	httpd = []string{"sh", "-c", "echo httpd on port 80; exec httpd -f -v -p 80 -h /www"}
	pause = []string{"/pause"}
)

// recipes: what each must contain, and why, follows from the specs that use it.
func recipes(arch string) []recipe {
	table := []recipe{
		// Almost every spec. Applets are hard links (MaskedPaths on /bin/ls masks that one only), the shell starts
		// programs, ping needs a raw socket, and `nobody` is a user.
		{names: []string{e2e + "busybox:1.29-2"}, trees: []string{"busybox"}, cmd: shell, form: dockerList},
		// A process `nginx` whose command line says "master process", with /var/run/nginx.pid, on port 80.
		{names: []string{e2e + "nginx:1.14-2"}, trees: []string{"busybox", "nginx"}, cmd: nginx, form: dockerList},
		// On port 12003, in the node's network.
		{names: []string{criTool + "hostnet-nginx-" + arch + ":latest"}, trees: []string{"busybox", "hostnet-nginx"}, cmd: nginx},
		// On port 80, and "httpd" in its log.
		{names: []string{e2e + "httpd:2.4.39-4"}, trees: []string{"busybox"}, label: "httpd", cmd: httpd, form: dockerList},
		// A set-user-id program that says whose rights it has.
		{names: []string{e2e + "nonewprivs:1.3"}, trees: []string{"nonewprivs"}, cmd: []string{"/nnp"}, form: dockerList},
		// The same content in two registries; the peer's sandboxes use one of the tags below.
		{names: []string{"registry.k8s.io/pause:3.9", "k8s.gcr.io/pause:3.9"}, trees: []string{"pause"}, cmd: pause},
		// One image with three tags.
		{names: []string{criTool + "test-image-tags:1", criTool + "test-image-tags:2", criTool + "test-image-tags:3"},
			trees: []string{"pause"}, label: "tags", cmd: pause, form: ociPlain},
		// Run, and mounted as a volume that has /bin/sh.
		{names: []string{criTool + "test-image-tag:test"}, trees: []string{"busybox", "pause"}, label: "tag", cmd: pause},
		{names: []string{criTool + "test-image-tag:all"}, trees: []string{"pause"}, label: "all", cmd: pause},
		{names: []string{standIn}, trees: []string{"predefined-group"}, label: "digest", form: ociPlain},
		// Users in the configuration of the image.
		{names: []string{criTool + "test-image-user-uid:latest"}, trees: []string{"busybox"}, user: "1002"},
		{names: []string{criTool + "test-image-user-username:latest"}, trees: []string{"busybox"}, user: "www-data"},
		{names: []string{criTool + "test-image-user-uid-group:latest"}, trees: []string{"busybox"}, user: "1003:1004"},
		{names: []string{criTool + "test-image-user-username-group:latest"}, trees: []string{"busybox"}, user: "www-data:1004"},
		// User 1000 is listed in group 50000 of the image.
		{names: []string{criTool + "test-image-predefined-group:latest"}, trees: []string{"busybox", "predefined-group"},
			user: "1000", cmd: shell},
	}
	// Tags are counted, so each is an image of its own.
	for _, tag := range []string{"3.6", "3.8", "3.10", "3.10.1", "3.10.2"} {
		table = append(table, recipe{names: []string{"registry.k8s.io/pause:" + tag}, trees: []string{"pause"}, label: tag,
			cmd: pause, form: dockerList})
	}
	for _, name := range []string{"1", "2", "3", "latest"} {
		table = append(table, recipe{names: []string{criTool + "test-image-" + name + ":latest"}, trees: []string{"pause"},
			label: "image " + name, cmd: pause})
	}
	for _, tag := range []string{"1", "1-glibc", "1-musl", "1-uclibc", "1.35.0-glibc"} {
		table = append(table, recipe{names: []string{library + tag}, trees: []string{"busybox"}, label: tag, cmd: shell})
	}
	return table
}
