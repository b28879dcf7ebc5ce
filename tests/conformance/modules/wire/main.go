// Command wire prints every message, field, enum value and method of the CRI and of containerd's services as the
// descriptors say that were compiled into their Go modules: a line each, sorted.
package main

import (
	"bufio"
	"fmt"
	"os"
	"sort"
	"strings"

	_ "github.com/containerd/containerd/api/events"
	_ "github.com/containerd/containerd/api/runtime/sandbox/v1"
	_ "github.com/containerd/containerd/api/runtime/task/v2"
	_ "github.com/containerd/containerd/api/runtime/task/v3"
	_ "github.com/containerd/containerd/api/services/containers/v1"
	_ "github.com/containerd/containerd/api/services/content/v1"
	_ "github.com/containerd/containerd/api/services/diff/v1"
	_ "github.com/containerd/containerd/api/services/events/v1"
	_ "github.com/containerd/containerd/api/services/images/v1"
	_ "github.com/containerd/containerd/api/services/introspection/v1"
	_ "github.com/containerd/containerd/api/services/leases/v1"
	_ "github.com/containerd/containerd/api/services/mounts/v1"
	_ "github.com/containerd/containerd/api/services/namespaces/v1"
	_ "github.com/containerd/containerd/api/services/sandbox/v1"
	_ "github.com/containerd/containerd/api/services/snapshots/v1"
	_ "github.com/containerd/containerd/api/services/streaming/v1"
	_ "github.com/containerd/containerd/api/services/tasks/v1"
	_ "github.com/containerd/containerd/api/services/transfer/v1"
	_ "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	_ "github.com/containerd/containerd/api/services/version/v1"
	_ "github.com/containerd/containerd/api/types"
	_ "github.com/containerd/containerd/api/types/runc/options"
	_ "github.com/containerd/containerd/api/types/task"
	_ "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	_ "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func main() {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		pkg := string(file.Package())
		if pkg == "runtime.v1" || pkg == "google.rpc" || strings.HasPrefix(pkg, "containerd.") {
			messages(file.Messages(), add)
			enums(file.Enums(), add)
			services(file.Services(), add)
		}
		return true
	})
	sort.Strings(lines)
	out := bufio.NewWriter(os.Stdout)
	for _, line := range lines {
		fmt.Fprintln(out, line)
	}
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "conformance: wire:", err)
		os.Exit(1)
	}
}

func messages(all protoreflect.MessageDescriptors, add func(string, ...any)) {
	for i := range all.Len() {
		message := all.Get(i)
		add("message %s", message.FullName())
		fields := message.Fields()
		for j := range fields.Len() {
			field := fields.Get(j)
			add("field %s %d %s%s%s", field.FullName(), field.Number(), label(field), typeOf(field), oneof(field))
		}
		messages(message.Messages(), add)
		enums(message.Enums(), add)
	}
}

func label(field protoreflect.FieldDescriptor) string {
	switch {
	case field.Cardinality() == protoreflect.Repeated:
		return "repeated "
	case field.HasOptionalKeyword():
		return "optional "
	}
	return ""
}

func typeOf(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return string(field.Message().FullName())
	case protoreflect.EnumKind:
		return string(field.Enum().FullName())
	}
	return field.Kind().String()
}

func oneof(field protoreflect.FieldDescriptor) string {
	if of := field.ContainingOneof(); of != nil && !of.IsSynthetic() {
		return " in " + string(of.Name())
	}
	return ""
}

func enums(all protoreflect.EnumDescriptors, add func(string, ...any)) {
	for i := range all.Len() {
		enum := all.Get(i)
		values := enum.Values()
		for j := range values.Len() {
			// A value's own full name lacks the enum's.
			add("value %s.%s %d", enum.FullName(), values.Get(j).Name(), values.Get(j).Number())
		}
	}
}

func services(all protoreflect.ServiceDescriptors, add func(string, ...any)) {
	for i := range all.Len() {
		methods := all.Get(i).Methods()
		for j := range methods.Len() {
			m := methods.Get(j)
			add("method %s %s%s -> %s%s", m.FullName(), stream(m.IsStreamingClient()), m.Input().FullName(),
				stream(m.IsStreamingServer()), m.Output().FullName())
		}
	}
}

func stream(is bool) string {
	if is {
		return "stream "
	}
	return ""
}
