// SPDX-License-Identifier: Apache-2.0
package dev.nibble.quantize;

/**
 * What calibration found for the key/value cache of one layer.
 *
 * @param keyFactor of the scales of keys in a 4-bit cache; 0 where there is none
 * @param valueFactor of the scales of values; 0 where there is none
 * @param keyScales of keys behind the rotation, [kvHeads * headDim], or null
 */
record CacheScales(float keyFactor, float valueFactor, float[] keyScales) {
  static final CacheScales NONE = new CacheScales(0, 0, null);

  boolean hasFactors() {
    return keyFactor > 0 && valueFactor > 0;
  }
}
