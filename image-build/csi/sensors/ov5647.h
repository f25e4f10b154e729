/* SPDX-License-Identifier: GPL-2.0 */
/* Camera Module 1, as the kernel's binding ovti,ov5647 wants it. One pin of the board switches its
 * three supplies. */
#define SENSOR_CLOCK_HZ 25000000
#define SENSOR_NODE                                                    \
	camera@36 {                                                    \
		compatible = "ovti,ov5647";                            \
		reg = <0x36>;                                          \
		clocks = <&camera_clock>;                              \
		avdd-supply = <&camera_supply>;                        \
		dvdd-supply = <&camera_supply>;                        \
		dovdd-supply = <&camera_supply>;                       \
		rotation = <0>;                                        \
		orientation = <2>;                                     \
		port {                                                 \
			camera_out: endpoint {                         \
				remote-endpoint = <&receiver_in>;      \
				data-lanes = <1 2>;                    \
				clock-noncontinuous;                   \
			};                                             \
		};                                                     \
	}
