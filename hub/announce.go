package hub

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/hub/place"
)

// announce writes an event about one of the hub's own objects, which have no namespace, into the hub's: it may write
// them nowhere else. Without a recorder it does nothing.
func announce(events record.EventRecorder, kind string, about metav1.Object, eventtype, reason, text string) {
	if events == nil {
		return
	}
	events.Event(&corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: kind, Name: about.GetName(),
		UID: about.GetUID(), Namespace: place.System}, eventtype, reason, text)
}
