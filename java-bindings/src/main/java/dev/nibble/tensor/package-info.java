// SPDX-License-Identifier: Apache-2.0
/**
 * Tensors, packed weights, caches and operators over the native library: one Java method is one
 * downcall.
 *
 * <p>Java checks types, shapes and bounds before a call and turns a native status into a typed
 * exception ({@link dev.nibble.NibbleException}) with the native message. Each call holds a {@link
 * dev.nibble.tensor.Leases lease} on all the native memory it reaches, so that closing something
 * in use waits and never frees under the call.
 */
package dev.nibble.tensor;
