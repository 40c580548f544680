// SPDX-License-Identifier: Apache-2.0

package reencrypt

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// apiServers returns the URLs of all API servers. By default each publishes its own
// address in the EndpointSlices of the Service kubernetes.
func apiServers(ctx context.Context, o Options, c *cluster) ([]string, error) {
	published := c.published(ctx)
	if len(o.APIServers) > 0 {
		if len(o.APIServers) < len(published) {
			return nil, fmt.Errorf("the cluster has %d API servers, %s: give each of them with --api-server",
				len(published), strings.Join(published, ", "))
		}
		return o.APIServers, nil
	}
	if len(published) > 1 {
		return published, nil
	}
	return []string{c.config.Host}, nil
}

// published returns the URLs in the EndpointSlices; none if they cannot be read.
func (c *cluster) published(ctx context.Context) (urls []string) {
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	text, err := c.pages.Get().
		AbsPath("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices").
		Param("labelSelector", "kubernetes.io/service-name=kubernetes").
		SetHeader("Accept", "application/json").
		Do(ctx).Raw()
	var slices discoveryv1.EndpointSliceList
	if err != nil || json.Unmarshal(text, &slices) != nil {
		return nil
	}
	for _, slice := range slices.Items {
		for _, port := range slice.Ports {
			if port.Port == nil { // never so for a Service's own
				continue
			}
			for _, endpoint := range slice.Endpoints {
				for _, address := range endpoint.Addresses {
					urls = append(urls, "https://"+net.JoinHostPort(address, strconv.Itoa(int(*port.Port))))
				}
			}
		}
	}
	return urls
}
