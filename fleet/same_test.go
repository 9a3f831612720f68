package fleet

import (
	"reflect"
	"slices"
	"testing"
)

// Each field makes a difference, also one that is added later; equal lists in another place are not known to be the same.
func TestSame(t *testing.T) {
	var zero Service
	if c := zero; !zero.Same(&c) {
		t.Error("a service is not the same as its copy")
	}
	for i := range reflect.TypeFor[Service]().NumField() {
		var other Service
		f, name := reflect.ValueOf(&other).Elem().Field(i), reflect.TypeFor[Service]().Field(i).Name
		switch f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int32:
			f.SetInt(1)
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		default:
			t.Fatalf("%s is a %s: say here how to set one", name, f.Kind())
		}
		if zero.Same(&other) {
			t.Errorf("field %s is not compared", name)
		}
		if c := other; !other.Same(&c) {
			t.Errorf("with %s a service is not the same as its copy", name)
		}
		if zero.SameHead(&other) != (name == "Endpoints") {
			t.Errorf("SameHead takes %s wrongly", name)
		}
	}
	a := Service{Ports: []Port{{Port: 1}}}
	b := Service{Ports: slices.Clone(a.Ports)}
	if a.Same(&b) {
		t.Error("lists in two places were taken for one without looking at them")
	}
}
