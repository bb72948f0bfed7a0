// The manifests of deploy/kubernetes, as kustomize makes them: each is read by Kubernetes' own types, which know of no field that
// is not theirs, and says what pail needs and what a careful cluster asks for.
//
//	go run . ../../deploy/kubernetes
package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// What there is to be, each once.
type manifests struct {
	service *corev1.Service
	pail    *appsv1.StatefulSet
	policy  *networkingv1.NetworkPolicy
}

func build(directory string) (manifests, error) {
	var all manifests
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), directory)
	if err != nil {
		return all, err
	}
	for _, resource := range made.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			return all, err
		}
		var into any
		switch kind := resource.GetGvk().String(); kind {
		case "Service.v1.[noGrp]":
			all.service = new(corev1.Service)
			into = all.service
		case "StatefulSet.v1.apps":
			all.pail = new(appsv1.StatefulSet)
			into = all.pail
		case "NetworkPolicy.v1.networking.k8s.io":
			all.policy = new(networkingv1.NetworkPolicy)
			into = all.policy
		default:
			return all, fmt.Errorf("what is a %s for?", kind)
		}
		if err := yaml.UnmarshalStrict(text, into); err != nil {
			return all, fmt.Errorf("%s: %w", resource.CurId(), err)
		}
	}
	if all.service == nil || all.pail == nil || all.policy == nil {
		return all, errors.New("a service, a stateful set and a network policy are to be there")
	}
	return all, nil
}

// One rule, and whether it is kept.
type rule struct {
	words string
	kept  bool
}

func is(value *bool, expected bool) bool { return value != nil && *value == expected }

func rules(all manifests) []rule {
	pod := all.pail.Spec.Template.Spec
	pail := pod.Containers[0]
	env := map[string]string{}
	for _, each := range pail.Env {
		env[each.Name] = each.Value
	}
	drain, _ := time.ParseDuration(env["PAIL_DRAIN_TIMEOUT"])
	var preStop time.Duration
	if pail.Lifecycle != nil && pail.Lifecycle.PreStop != nil && pail.Lifecycle.PreStop.Sleep != nil {
		preStop = time.Duration(pail.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	}
	var grace time.Duration
	if pod.TerminationGracePeriodSeconds != nil {
		grace = time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second
	}
	port := all.service.Spec.Ports[0]
	protocol := port.AppProtocol
	labels := all.pail.Spec.Template.Labels
	selected := len(all.service.Spec.Selector) > 0
	for name, value := range all.service.Spec.Selector {
		selected = selected && labels[name] == value && all.pail.Spec.Selector.MatchLabels[name] == value
	}
	inside := pail.SecurityContext
	grpc := func(probe *corev1.Probe) bool {
		return probe != nil && probe.GRPC != nil && probe.GRPC.Port == pail.Ports[0].ContainerPort
	}
	named := true
	var clients []networkingv1.NetworkPolicyPeer
	for _, ingress := range all.policy.Spec.Ingress {
		from := ingress.From
		named = named && len(from) == 1 && from[0].PodSelector != nil && len(from[0].PodSelector.MatchLabels) == 1 && len(ingress.Ports) == 1
		if named && ingress.Ports[0].Port.String() == "grpc" {
			clients = append(clients, from...)
		}
	}
	var bytesMax int64
	fmt.Sscan(env["PAIL_MEMORY_BYTES_MAX"], &bytesMax)
	return []rule{
		{"there is one replica: one registry", all.pail.Spec.Replicas != nil && *all.pail.Spec.Replicas == 1},
		{"the service leads to it", selected && port.TargetPort.String() == pail.Ports[0].Name},
		{"the service is headless", all.service.Spec.ClusterIP == corev1.ClusterIPNone},
		{"the stateful set is the service's", all.pail.Spec.ServiceName == all.service.Name},
		{"a mesh knows that it is HTTP/2", protocol != nil && *protocol == "kubernetes.io/h2c"},
		{"it listens where the port is", strings.HasSuffix(env["PAIL_LISTEN"], fmt.Sprintf(":%d", port.Port))},
		{"the probes are gRPC's own", grpc(pail.StartupProbe) && grpc(pail.ReadinessProbe) && grpc(pail.LivenessProbe)},
		{"readiness is that of the buckets", *pail.ReadinessProbe.GRPC.Service == "pail.v1.BucketService"},
		{"it has time to drain after preStop", drain > 0 && preStop > 0 && grace > preStop+drain},
		{"the drain is longer than preStop", drain > preStop},
		{"it is not root", is(pod.SecurityContext.RunAsNonRoot, true) && *pod.SecurityContext.RunAsUser > 0},
		{"its root is read only", is(inside.ReadOnlyRootFilesystem, true)},
		{"it may gain nothing", is(inside.AllowPrivilegeEscalation, false) && len(inside.Capabilities.Drop) == 1},
		{"it has no token of the cluster's", is(pod.AutomountServiceAccountToken, false)},
		{"memory has a limit, twice what is charged", bytesMax > 0 && 2*bytesMax <= pail.Resources.Limits.Memory().Value()},
		{"the policy is about it", maps.Equal(all.policy.Spec.PodSelector.MatchLabels, all.pail.Spec.Selector.MatchLabels)},
		{"only who says so may reach it, and its calls only from its own namespace", named && len(clients) == 1 && clients[0].NamespaceSelector == nil},
	}
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: manifests DIRECTORY")
		os.Exit(2)
	}
	all, err := build(os.Args[1])
	if err != nil {
		fmt.Println("WRONG ", err)
		os.Exit(1)
	}
	var broken bytes.Buffer
	kept := rules(all)
	for _, rule := range kept {
		if !rule.kept {
			fmt.Fprintln(&broken, "WRONG ", rule.words)
		}
	}
	fmt.Print(broken.String())
	fmt.Printf("%d rules, and %d are broken\n", len(kept), strings.Count(broken.String(), "\n"))
	if broken.Len() > 0 {
		os.Exit(1)
	}
}
