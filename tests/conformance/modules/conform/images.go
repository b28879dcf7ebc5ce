package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	ociManifestType = "application/vnd.oci.image.manifest.v1+json"
	ociIndexType    = "application/vnd.oci.image.index.v1+json"
	ociConfigType   = "application/vnd.oci.image.config.v1+json"
	ociLayerType    = "application/vnd.oci.image.layer.v1.tar"
	dockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	dockerListType  = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig    = "application/vnd.docker.container.image.v1+json"
	dockerLayer     = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	nameAnnotation  = "io.containerd.image.name"
)

// link is a descriptor of the OCI.
type link struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type manifest struct {
	SchemaVersion int    `json:"schemaVersion"`
	MediaType     string `json:"mediaType"`
	Config        *link  `json:"config,omitempty"`
	Layers        []link `json:"layers,omitempty"`
	Manifests     []link `json:"manifests,omitempty"`
}

// packer writes blobs below a folder, as an OCI layout has them.
type packer struct {
	trees, out string
	layers     map[string]layer
}

// layer is a file tree, as stored.
type layer struct {
	diffID string
	link   link
}

// pack builds every image and lists them in index.json, and writes the lot as one archive.
func pack(trees, out string) error {
	p := packer{trees, out, map[string]layer{}}
	if err := os.MkdirAll(filepath.Join(out, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	index := manifest{SchemaVersion: 2, MediaType: ociIndexType}
	for _, r := range recipes(runtime.GOARCH) {
		top, err := p.image(r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.names[0], err)
		}
		for _, name := range r.names {
			named := top
			named.Annotations = map[string]string{nameAnnotation: name}
			index.Manifests = append(index.Manifests, named)
		}
		if r.names[0] == standIn {
			if err := os.WriteFile(filepath.Join(out, "digest"), []byte(top.Digest), 0o644); err != nil {
				return err
			}
		}
	}
	bytes, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "index.json"), bytes, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return err
	}
	return p.archive()
}

// image stores one image and returns the descriptor that a tag points to.
func (p *packer) image(r recipe) (link, error) {
	manifestType, configType, indexType := ociManifestType, ociConfigType, ociIndexType
	if r.form == dockerList {
		manifestType, configType, indexType = dockerManifest, dockerConfig, dockerListType
	}
	build := func(arch string, trees []string) (link, error) {
		stored := manifest{SchemaVersion: 2, MediaType: manifestType}
		diffIDs := []string{}
		for _, tree := range trees {
			l, err := p.layer(tree, r.form != ociPlain)
			if err != nil {
				return link{}, err
			}
			diffIDs = append(diffIDs, l.diffID)
			if r.form == dockerList {
				l.link.MediaType = dockerLayer
			}
			stored.Layers = append(stored.Layers, l.link)
		}
		config := map[string]any{
			"architecture": arch,
			"os":           "linux",
			"config": map[string]any{
				"Env": []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
				"Cmd": r.cmd, "User": r.user, "Labels": map[string]string{"cricket.test.image": r.label},
			},
			"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
		}
		configLink, err := p.document(configType, config)
		if err != nil {
			return link{}, err
		}
		stored.Config = &configLink
		return p.document(manifestType, stored)
	}
	ours, err := build(runtime.GOARCH, r.trees)
	if err != nil || r.form == ociPlain {
		return ours, err
	}
	foreign, err := build("s390x", r.trees[:1])
	if err != nil {
		return link{}, err
	}
	foreign.Platform = &platform{"s390x", "linux"}
	ours.Platform = &platform{runtime.GOARCH, "linux"}
	return p.document(indexType, manifest{SchemaVersion: 2, MediaType: indexType, Manifests: []link{foreign, ours}})
}

func (p *packer) document(mediaType string, value any) (link, error) {
	bytes, err := json.Marshal(value)
	if err != nil {
		return link{}, err
	}
	return p.blob(mediaType, bytes)
}

func (p *packer) blob(mediaType string, bytes []byte) (link, error) {
	digest := digestOf(bytes)
	return link{MediaType: mediaType, Digest: digest, Size: len(bytes)}, os.WriteFile(blobPath(p.out, digest), bytes, 0o644)
}

func (p *packer) layer(tree string, squeeze bool) (layer, error) {
	key := fmt.Sprint(tree, squeeze)
	if done, ok := p.layers[key]; ok {
		return done, nil
	}
	var plain bytes.Buffer
	if err := writeTree(filepath.Join(p.trees, tree), &plain); err != nil {
		return layer{}, err
	}
	stored, mediaType := plain.Bytes(), ociLayerType
	if squeeze {
		var err error
		if stored, err = squeezed(stored); err != nil {
			return layer{}, err
		}
		mediaType += "+gzip"
	}
	blob, err := p.blob(mediaType, stored)
	p.layers[key] = layer{digestOf(plain.Bytes()), blob}
	return p.layers[key], err
}

func squeezed(plain []byte) ([]byte, error) {
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := zip.Write(plain); err != nil {
		return nil, err
	}
	err = zip.Close()
	return out.Bytes(), err
}

// writeTree writes a folder as a layer: owned by root, without times, hard links as such. The same files give the same bytes.
func writeTree(root string, to io.Writer) error {
	out := tar.NewWriter(to)
	seen := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		target := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err
		}
		header.Name, header.Format = name, tar.FormatUSTAR
		header.ModTime, header.AccessTime, header.ChangeTime = time.Unix(0, 0), time.Time{}, time.Time{}
		header.Uid, header.Gid, header.Uname, header.Gname = 0, 0, "root", "root"
		if entry.IsDir() {
			header.Name += "/"
		}
		inode := info.Sys().(*syscall.Stat_t).Ino
		first, known := seen[inode]
		if info.Mode().IsRegular() && known {
			header.Typeflag, header.Linkname, header.Size = tar.TypeLink, first, 0
		}
		if err := out.WriteHeader(header); err != nil || header.Typeflag != tar.TypeReg {
			return err
		}
		seen[inode] = name
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(out, file)
		return err
	})
	if err != nil {
		return err
	}
	return out.Close()
}

// archive writes the layout as one file.
func (p *packer) archive() error {
	file, err := os.Create(filepath.Join(p.out, "images.tar"))
	if err != nil {
		return err
	}
	defer file.Close()
	out := tar.NewWriter(file)
	names := []string{"oci-layout", "index.json"}
	blobs, err := os.ReadDir(filepath.Join(p.out, "blobs", "sha256"))
	if err != nil {
		return err
	}
	for _, blob := range blobs {
		names = append(names, "blobs/sha256/"+blob.Name())
	}
	for _, name := range names {
		bytes, err := os.ReadFile(filepath.Join(p.out, name))
		if err != nil {
			return err
		}
		if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(bytes))}); err != nil {
			return err
		}
		if _, err := out.Write(bytes); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return err
	}
	return file.Close()
}

func blobPath(out, digest string) string {
	return filepath.Join(out, "blobs", strings.Replace(digest, ":", "/", 1))
}

func digestOf(bytes []byte) string {
	sum := sha256.Sum256(bytes)
	return "sha256:" + hex.EncodeToString(sum[:])
}
