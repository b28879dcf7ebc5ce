package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// push uploads every image below out. One registry stands for all: the first part of a name is left out.
func push(out, address string) error {
	bytes, err := os.ReadFile(filepath.Join(out, "index.json"))
	if err != nil {
		return err
	}
	var index manifest
	if err := json.Unmarshal(bytes, &index); err != nil {
		return err
	}
	for _, image := range index.Manifests {
		name := image.Annotations[nameAnnotation]
		_, path, _ := strings.Cut(name, "/")
		colon := strings.LastIndexByte(path, ':')
		r := repository{out, "http://" + address + "/v2/" + path[:colon]}
		if err := r.manifest(image, path[colon+1:]); err != nil {
			return fmt.Errorf("push %s: %w", name, err)
		}
	}
	return nil
}

type repository struct{ out, base string }

// manifest uploads a manifest or an index as tag, after everything that it names.
func (r repository) manifest(l link, tag string) error {
	content, err := os.ReadFile(blobPath(r.out, l.Digest))
	if err != nil {
		return err
	}
	var m manifest
	if err := json.Unmarshal(content, &m); err != nil {
		return err
	}
	for _, below := range m.Manifests {
		if err := r.manifest(below, below.Digest); err != nil {
			return err
		}
	}
	blobs := m.Layers
	if m.Config != nil {
		blobs = append(blobs, *m.Config)
	}
	for _, blob := range blobs {
		if err := r.blob(blob.Digest); err != nil {
			return err
		}
	}
	_, err = send("PUT", r.base+"/manifests/"+tag, l.MediaType, content, http.StatusCreated)
	return err
}

func (r repository) blob(digest string) error {
	if _, err := send("HEAD", r.base+"/blobs/"+digest, "", nil, http.StatusOK); err == nil {
		return nil
	}
	content, err := os.ReadFile(blobPath(r.out, digest))
	if err != nil {
		return err
	}
	begun, err := send("POST", r.base+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	location, err := begun.Location()
	if err != nil {
		return err
	}
	query := location.Query()
	query.Set("digest", digest)
	location.RawQuery = query.Encode()
	_, err = send("PUT", location.String(), "application/octet-stream", content, http.StatusCreated)
	return err
}

func send(method, to, mediaType string, content []byte, want int) (*http.Response, error) {
	request, err := http.NewRequest(method, to, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	if mediaType != "" {
		request.Header.Set("Content-Type", mediaType)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s %s", method, to, response.Status, said)
	}
	return response, nil
}
