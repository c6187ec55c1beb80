// Package assert stands in for testify's: the functions that tests of HumanEval-X and their like
// use, with the same notion of equality.
package assert

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"strings"
)

const mostText = 10000 // of one value in a message

// TestingT is what fails.
type TestingT interface {
	Errorf(format string, args ...any)
}

// Assertions is a TestingT with the functions of this package as methods.
type Assertions struct{ t TestingT }

// New makes assertions on t.
func New(t TestingT) *Assertions { return &Assertions{t} }

// ObjectsAreEqual is equality as testify has it: bytes by content, the rest deeply.
func ObjectsAreEqual(expected, actual any) bool {
	if expected == nil || actual == nil {
		return expected == actual
	}
	exp, ok := expected.([]byte)
	if !ok {
		return reflect.DeepEqual(expected, actual)
	}
	act, ok := actual.([]byte)
	if !ok {
		return false
	}
	if exp == nil || act == nil {
		return exp == nil && act == nil
	}
	return bytes.Equal(exp, act)
}

// ObjectsAreEqualValues is equality after a conversion to the type expected.
func ObjectsAreEqualValues(expected, actual any) bool {
	if ObjectsAreEqual(expected, actual) {
		return true
	}
	kind := reflect.TypeOf(actual)
	value := reflect.ValueOf(expected)
	if kind == nil || !value.IsValid() || !value.Type().ConvertibleTo(kind) {
		return false
	}
	return reflect.DeepEqual(value.Convert(kind).Interface(), actual)
}

// Fail reports a failure; always false.
func Fail(t TestingT, failure string, message ...any) bool {
	text := "\n\tError Trace:\t" + place() + "\n\tError:      \t" +
		strings.ReplaceAll(failure, "\n", "\n\t            \t") + "\n"
	if len(message) == 1 {
		text += fmt.Sprintf("\tMessages:   \t%+v\n", message[0])
	} else if len(message) > 1 {
		text += "\tMessages:   \t" + fmt.Sprintf(fmt.Sprint(message[0]), message[1:]...) + "\n"
	}
	t.Errorf("%s", text)
	return false
}

// FailNow reports a failure and ends the test.
func FailNow(t TestingT, failure string, message ...any) bool {
	Fail(t, failure, message...)
	if t, ok := t.(interface{ FailNow() }); ok {
		t.FailNow()
	}
	return false
}

func place() string {
	for skip := 2; ; skip++ {
		pc, file, line, ok := runtime.Caller(skip)
		if !ok {
			return "?"
		}
		if !strings.HasPrefix(runtime.FuncForPC(pc).Name(), "github.com/stretchr/testify/") {
			return fmt.Sprintf("%s:%d", file[strings.LastIndex(file, "/")+1:], line)
		}
	}
}

func show(value any) string {
	text := fmt.Sprintf("%#v", value)
	if len(text) > mostText {
		text = text[:mostText] + "..."
	}
	return text
}

func different(expected, actual any) string {
	exp, act := show(expected), show(actual)
	if reflect.TypeOf(expected) != reflect.TypeOf(actual) {
		exp, act = fmt.Sprintf("%T(%s)", expected, exp), fmt.Sprintf("%T(%s)", actual, act)
	}
	return "Not equal: \nexpected: " + exp + "\nactual  : " + act
}

func isFunction(value any) bool {
	return value != nil && reflect.TypeOf(value).Kind() == reflect.Func
}

func check(t TestingT, ok bool, message []any, failure string, values ...any) bool {
	if !ok {
		texts := make([]any, len(values))
		for i, value := range values {
			texts[i] = show(value)
		}
		return Fail(t, fmt.Sprintf(failure, texts...), message...)
	}
	return true
}

// Equal asserts that two values are equal; functions never are.
func Equal(t TestingT, expected, actual any, message ...any) bool {
	if isFunction(expected) || isFunction(actual) {
		return Fail(t, "Invalid operation: cannot take func type as argument", message...)
	}
	if !ObjectsAreEqual(expected, actual) {
		return Fail(t, different(expected, actual), message...)
	}
	return true
}

// NotEqual asserts that two values are not equal; of functions that cannot be told.
func NotEqual(t TestingT, expected, actual any, message ...any) bool {
	if isFunction(expected) || isFunction(actual) {
		return Fail(t, "Invalid operation: cannot take func type as argument", message...)
	}
	return check(t, !ObjectsAreEqual(expected, actual), message, "Should not be: %s", actual)
}

// EqualValues asserts that two values are equal or convertible to equal ones.
func EqualValues(t TestingT, expected, actual any, message ...any) bool {
	if !ObjectsAreEqualValues(expected, actual) {
		return Fail(t, different(expected, actual), message...)
	}
	return true
}

// True asserts that a value is true.
func True(t TestingT, value bool, message ...any) bool {
	return check(t, value, message, "Should be true")
}

// False asserts that a value is false.
func False(t TestingT, value bool, message ...any) bool {
	return check(t, !value, message, "Should be false")
}

func isNil(value any) bool {
	if value == nil {
		return true
	}
	switch v := reflect.ValueOf(value); v.Kind() {
	case reflect.Chan, reflect.Func, reflect.Interface, reflect.Map, reflect.Ptr, reflect.Slice,
		reflect.UnsafePointer:
		return v.IsNil()
	}
	return false
}

// Nil asserts that a value is nil.
func Nil(t TestingT, value any, message ...any) bool {
	return check(t, isNil(value), message, "Expected nil, but got: %s", value)
}

// NotNil asserts that a value is not nil.
func NotNil(t TestingT, value any, message ...any) bool {
	return check(t, !isNil(value), message, "Expected value not to be nil.")
}

// Error asserts that there is an error.
func Error(t TestingT, err error, message ...any) bool {
	return check(t, err != nil, message, "An error is expected but got nil.")
}

// NoError asserts that there is no error.
func NoError(t TestingT, err error, message ...any) bool {
	if err != nil {
		return Fail(t, fmt.Sprintf("Received unexpected error:\n%+v", err), message...)
	}
	return true
}

func isEmpty(value any) bool {
	if value == nil {
		return true
	}
	switch v := reflect.ValueOf(value); v.Kind() {
	case reflect.Chan, reflect.Map, reflect.Slice:
		return v.Len() == 0
	case reflect.Ptr:
		return v.IsNil() || isEmpty(v.Elem().Interface())
	default:
		return reflect.DeepEqual(value, reflect.Zero(v.Type()).Interface())
	}
}

// Empty asserts that a value is zero or has no elements.
func Empty(t TestingT, value any, message ...any) bool {
	return check(t, isEmpty(value), message, "Should be empty, but was %s", value)
}

// NotEmpty asserts that a value is neither zero nor without elements.
func NotEmpty(t TestingT, value any, message ...any) bool {
	return check(t, !isEmpty(value), message, "Should NOT be empty, but was %s", value)
}

func length(value any) (size int) {
	defer func() {
		if recover() != nil {
			size = -1
		}
	}()
	return reflect.ValueOf(value).Len()
}

// Len asserts the number of elements.
func Len(t TestingT, value any, size int, message ...any) bool {
	return check(t, length(value) == size, message, "%s should have %s item(s)", value, size)
}

func contains(list, element any) (found, ok bool) {
	v := reflect.ValueOf(list)
	if list == nil {
		return false, false
	}
	switch v.Kind() {
	case reflect.String:
		if reflect.TypeOf(element).Kind() != reflect.String {
			return false, false
		}
		return strings.Contains(v.String(), reflect.ValueOf(element).String()), true
	case reflect.Map:
		for _, key := range v.MapKeys() {
			if ObjectsAreEqual(key.Interface(), element) {
				return true, true
			}
		}
		return false, true
	case reflect.Slice, reflect.Array:
		for i := 0; i < v.Len(); i++ {
			if ObjectsAreEqual(v.Index(i).Interface(), element) {
				return true, true
			}
		}
		return false, true
	}
	return false, false
}

// Contains asserts that a string, list or map (its keys) contains something.
func Contains(t TestingT, list, element any, message ...any) bool {
	found, ok := contains(list, element)
	return check(t, found && ok, message, "%s does not contain %s", list, element)
}

// NotContains asserts that a string, list or map (its keys) does not contain something.
func NotContains(t TestingT, list, element any, message ...any) bool {
	found, ok := contains(list, element)
	return check(t, !found && ok, message, "%s should not contain %s", list, element)
}

// ElementsMatch asserts that two lists have the same elements, in any order.
func ElementsMatch(t TestingT, listA, listB any, message ...any) bool {
	if isEmpty(listA) && isEmpty(listB) {
		return true
	}
	a, b := reflect.ValueOf(listA), reflect.ValueOf(listB)
	same := length(listA) >= 0 && length(listA) == length(listB)
	used := make([]bool, length(listB)+1)
	for i := 0; same && i < a.Len(); i++ {
		same = false
		for j := 0; !same && j < b.Len(); j++ {
			if !used[j] && ObjectsAreEqual(a.Index(i).Interface(), b.Index(j).Interface()) {
				used[j], same = true, true
			}
		}
	}
	return check(t, same, message, "elements differ: %s and %s", listA, listB)
}

func float(value any) (number float64, ok bool) {
	switch v := reflect.ValueOf(value); v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return float64(v.Int()), true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return float64(v.Uint()), true
	case reflect.Float32, reflect.Float64:
		return v.Float(), true
	}
	return 0, false
}

// InDelta asserts that two numbers are within delta of each other.
func InDelta(t TestingT, expected, actual any, delta float64, message ...any) bool {
	exp, isNumber := float(expected)
	act, areNumbers := float(actual)
	near := math.Abs(exp-act) <= delta || math.IsNaN(exp) && math.IsNaN(act)
	return check(t, isNumber && areNumbers && near, message,
		"Max difference between %s and %s allowed is %s", expected, actual, delta)
}

// InEpsilon asserts that the relative error of a number is at most epsilon.
func InEpsilon(t TestingT, expected, actual any, epsilon float64, message ...any) bool {
	exp, isNumber := float(expected)
	act, areNumbers := float(actual)
	near := exp != 0 && math.Abs(exp-act)/math.Abs(exp) <= epsilon
	return check(t, isNumber && areNumbers && near, message,
		"Relative error is too high: %s and %s, allowed %s", expected, actual, epsilon)
}

func panics(f func()) (did bool) {
	did = true
	defer func() { recover() }()
	f()
	return false
}

// Panics asserts that a function panics.
func Panics(t TestingT, f func(), message ...any) bool {
	return check(t, panics(f), message, "func should panic")
}

// NotPanics asserts that a function does not panic.
func NotPanics(t TestingT, f func(), message ...any) bool {
	return check(t, !panics(f), message, "func should not panic")
}

// The same as methods.

func (a *Assertions) Fail(failure string, message ...any) bool {
	return Fail(a.t, failure, message...)
}

func (a *Assertions) FailNow(failure string, message ...any) bool {
	return FailNow(a.t, failure, message...)
}

func (a *Assertions) Equal(expected, actual any, message ...any) bool {
	return Equal(a.t, expected, actual, message...)
}

func (a *Assertions) NotEqual(expected, actual any, message ...any) bool {
	return NotEqual(a.t, expected, actual, message...)
}

func (a *Assertions) EqualValues(expected, actual any, message ...any) bool {
	return EqualValues(a.t, expected, actual, message...)
}

func (a *Assertions) True(value bool, message ...any) bool {
	return True(a.t, value, message...)
}

func (a *Assertions) False(value bool, message ...any) bool {
	return False(a.t, value, message...)
}

func (a *Assertions) Nil(value any, message ...any) bool {
	return Nil(a.t, value, message...)
}

func (a *Assertions) NotNil(value any, message ...any) bool {
	return NotNil(a.t, value, message...)
}

func (a *Assertions) Error(err error, message ...any) bool {
	return Error(a.t, err, message...)
}

func (a *Assertions) NoError(err error, message ...any) bool {
	return NoError(a.t, err, message...)
}

func (a *Assertions) Empty(value any, message ...any) bool {
	return Empty(a.t, value, message...)
}

func (a *Assertions) NotEmpty(value any, message ...any) bool {
	return NotEmpty(a.t, value, message...)
}

func (a *Assertions) Len(value any, size int, message ...any) bool {
	return Len(a.t, value, size, message...)
}

func (a *Assertions) Contains(list, element any, message ...any) bool {
	return Contains(a.t, list, element, message...)
}

func (a *Assertions) NotContains(list, element any, message ...any) bool {
	return NotContains(a.t, list, element, message...)
}

func (a *Assertions) ElementsMatch(listA, listB any, message ...any) bool {
	return ElementsMatch(a.t, listA, listB, message...)
}

func (a *Assertions) InDelta(expected, actual any, delta float64, message ...any) bool {
	return InDelta(a.t, expected, actual, delta, message...)
}

func (a *Assertions) InEpsilon(expected, actual any, epsilon float64, message ...any) bool {
	return InEpsilon(a.t, expected, actual, epsilon, message...)
}

func (a *Assertions) Panics(f func(), message ...any) bool {
	return Panics(a.t, f, message...)
}

func (a *Assertions) NotPanics(f func(), message ...any) bool {
	return NotPanics(a.t, f, message...)
}
