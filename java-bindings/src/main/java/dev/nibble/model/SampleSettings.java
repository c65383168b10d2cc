// SPDX-License-Identifier: Apache-2.0
package dev.nibble.model;

/**
 * What the model's device needs to choose tokens itself: {@code nb_penalize}, then {@code
 * nb_sample}.
 *
 * @param temperature 0 for the likeliest token always, to 100
 * @param topK keep the k likeliest tokens; 0 for all
 * @param topP keep the likeliest tokens that together have this probability; 1 for all
 * @param minP drop tokens less likely than this fraction of the likeliest; 0 for none
 * @param repeatPenalty of recent tokens; 1 for none
 * @param repeatWindow the most tokens that are recent
 */
public record SampleSettings(
    float temperature, int topK, float topP, float minP, float repeatPenalty, int repeatWindow) {

  boolean penalizes() {
    return repeatPenalty != 1;
  }
}
